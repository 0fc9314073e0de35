"""scikit-learn's MLPClassifier: partial_fit on each batch, or fit, which trains a while from where it was."""

import warnings

import numpy as np
from networks import BETA_1, BETA_2, EPSILON, LEARNING_RATE
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

warnings.simplefilter("ignore", ConvergenceWarning)


class Peer:
    outer_epsilon = False

    def __init__(self, mode):
        self.mode = mode

    def load(self, case):
        self.case, self.done, self.chunk = case, 0, case.batches if self.mode == "fit" else 1
        self.restarts = self.mode == "fit"  # each fit begins with a new Adam
        self.x, y = case.data()
        self.y = y[:, 0]
        self.model = MLPClassifier(
            hidden_layer_sizes=case.widths[1:-1],
            alpha=0.0,
            batch_size=case.batch,
            learning_rate_init=LEARNING_RATE,
            beta_1=BETA_1,
            beta_2=BETA_2,
            epsilon=EPSILON,
            shuffle=False,
            warm_start=self.mode == "fit",
            max_iter=1,
            tol=0.0,
            n_iter_no_change=10**9,
        )
        rows = case.rows(0)
        self.model.partial_fit(self.x[rows], self.y[rows], classes=[0.0, 1.0])  # makes the arrays
        for old, new in zip(self.parameters(), case.weights(), strict=True):
            old[...] = new
        del self.model._optimizer  # and a new one is made with the next step
        self.model.t_ = 0

    def parameters(self):
        model = self.model
        return [w for pair in zip(model.coefs_, model.intercepts_, strict=True) for w in pair]

    def run(self, steps):
        case, model = self.case, self.model
        if self.mode == "fit":
            epochs, rest = divmod(steps, case.batches)
            if epochs:
                model.max_iter = epochs
                model.fit(self.x, self.y)
            model.max_iter = 1
            for step in range(self.done, self.done + rest):
                model.fit(self.x[case.rows(step)], self.y[case.rows(step)])
        else:
            for step in range(self.done, self.done + steps):
                model.partial_fit(self.x[case.rows(step)], self.y[case.rows(step)])
        self.done += steps

    def shuffle(self):
        self.model.shuffle = True

    def weights(self):
        return [np.array(w) for w in self.parameters()]

    def predict(self, x):
        return self.model.predict_proba(x)[:, 1:]
