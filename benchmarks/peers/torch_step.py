"""torch: eager with its default Adam, with the fused one, and compiled; on a GPU, compiled into CUDA graphs."""

import os

import numpy as np
import torch
from networks import BETA_1, BETA_2, EPSILON, LEARNING_RATE

torch.set_num_threads(int(os.environ.get("BENCHMARK_THREADS", os.cpu_count())))
DEVICE = os.environ.get("BENCHMARK_DEVICE", "cpu")
TF32 = os.environ.get("BENCHMARK_TF32") == "1"
torch.backends.cuda.matmul.allow_tf32 = TF32
torch.backends.cudnn.allow_tf32 = TF32


class Peer:
    chunk, outer_epsilon = 1, True

    def __init__(self, form):
        self.form = form

    def load(self, case):
        torch._dynamo.reset()
        self.case, self.done = case, 0
        x, y = case.data()
        self.parts = [
            (torch.from_numpy(x[case.rows(i)]).to(DEVICE), torch.from_numpy(y[case.rows(i)]).to(DEVICE))
            for i in range(case.batches)
        ]
        self.kernels, self.biases = [], []
        for i, w in enumerate(case.weights()):
            parameter = torch.nn.Parameter(torch.from_numpy(w).to(DEVICE))
            (self.biases if i % 2 else self.kernels).append(parameter)
        self.parameters = [p for pair in zip(self.kernels, self.biases, strict=True) for p in pair]
        on_gpu, compiled = DEVICE != "cpu", self.form == "compile"
        self.optimizer = torch.optim.Adam(
            self.parameters,
            lr=torch.tensor(LEARNING_RATE, device=DEVICE) if compiled and on_gpu else LEARNING_RATE,
            betas=(BETA_1, BETA_2),
            eps=EPSILON,
            fused=True if self.form == "fused" else None,
            capturable=compiled and on_gpu,
        )
        self.loss, self.update = self._loss, self.optimizer.step
        if compiled:
            options = {"mode": "reduce-overhead"} if on_gpu else {}
            self.loss, self.update = torch.compile(self._loss, **options), torch.compile(self.optimizer.step)

    def logits(self, x, training):
        case = self.case
        for i in range(len(case.layers)):
            x = torch.addmm(self.biases[i], x, self.kernels[i])
            if i < len(case.layers) - 1:
                x = torch.relu(x)
            if training and case.rate(i) > 0:
                x = torch.nn.functional.dropout(x, case.rate(i), training=True)
        return x

    def _loss(self, x, y):
        case = self.case
        value = torch.nn.functional.binary_cross_entropy_with_logits(self.logits(x, True), y)
        for i in range(len(case.layers)):
            l1, l2 = case.penalties(i)
            if l1:
                value = value + l1 * self.kernels[i].abs().sum()
            if l2:
                value = value + l2 * self.kernels[i].square().sum()
        return value

    def run(self, steps):
        loss, update, zero, parts, batches = (
            self.loss,
            self.update,
            self.optimizer.zero_grad,
            self.parts,
            self.case.batches,
        )
        for i in range(self.done, self.done + steps):
            zero()
            loss(*parts[i % batches]).backward()
            update()
        self.done += steps
        if DEVICE != "cpu":
            torch.cuda.synchronize()

    def weights(self):
        return [p.detach().cpu().numpy().copy() for p in self.parameters]

    @torch.no_grad()
    def predict(self, x):
        return np.asarray(torch.sigmoid(self.logits(torch.from_numpy(x).to(DEVICE), False)).cpu())
