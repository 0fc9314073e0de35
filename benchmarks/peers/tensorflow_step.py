"""TensorFlow without Keras: a step in a tf.function, with XLA or without."""

import os

import numpy as np
import tensorflow as tf
from networks import BETA_1, BETA_2, EPSILON, LEARNING_RATE

THREADS = int(os.environ.get("BENCHMARK_THREADS", os.cpu_count()))
tf.config.threading.set_intra_op_parallelism_threads(THREADS)
tf.config.threading.set_inter_op_parallelism_threads(THREADS)


class Peer:
    chunk, outer_epsilon = 1, False

    def __init__(self, xla):
        self.xla = xla

    def load(self, case):
        self.case, self.done = case, 0
        x, y = case.data()
        self.parts = [(tf.constant(x[case.rows(i)]), tf.constant(y[case.rows(i)])) for i in range(case.batches)]
        self.variables = [tf.Variable(w) for w in case.weights()]
        self.m = [tf.Variable(tf.zeros_like(w)) for w in self.variables]
        self.v = [tf.Variable(tf.zeros_like(w)) for w in self.variables]
        self.t = tf.Variable(0.0)
        self._step = tf.function(self.step, jit_compile=self.xla)
        self._predict = tf.function(lambda x: tf.sigmoid(self.logits(x, False)), jit_compile=self.xla)

    def logits(self, x, training):
        case = self.case
        for i in range(len(case.layers)):
            x = tf.matmul(x, self.variables[2 * i]) + self.variables[2 * i + 1]
            if i < len(case.layers) - 1:
                x = tf.nn.relu(x)
            if training and case.rate(i) > 0:
                x = tf.nn.dropout(x, case.rate(i))
        return x

    def step(self, x, y):
        case = self.case
        with tf.GradientTape() as tape:
            z = self.logits(x, True)
            value = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=z))
            for i in range(len(case.layers)):
                l1, l2 = case.penalties(i)
                if l1:
                    value += l1 * tf.reduce_sum(tf.abs(self.variables[2 * i]))
                if l2:
                    value += l2 * tf.reduce_sum(tf.square(self.variables[2 * i]))
        gradients = tape.gradient(value, self.variables)
        self.t.assign_add(1.0)
        alpha = LEARNING_RATE * tf.sqrt(1 - BETA_2**self.t) / (1 - BETA_1**self.t)
        for w, m, v, g in zip(self.variables, self.m, self.v, gradients, strict=True):
            m.assign_add((1 - BETA_1) * (g - m))
            v.assign_add((1 - BETA_2) * (g * g - v))
            w.assign_sub(alpha * m / (tf.sqrt(v) + EPSILON))
        return value

    def run(self, steps):
        step, parts, batches = self._step, self.parts, self.case.batches
        for i in range(self.done, self.done + steps):
            value = step(*parts[i % batches])
        self.done += steps
        value.numpy()

    def weights(self):
        return [w.numpy() for w in self.variables]

    def predict(self, x):
        return np.asarray(self._predict(tf.constant(x)))
