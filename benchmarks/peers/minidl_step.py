"""The steps that minidl's fit runs, without the loop around them: as many batches at once as there."""

from minidl.fused import FusedStep, batches_together

import numpy as np  # after minidl, which may set up the BLAS
from peers import keras_names


class Peer(keras_names.Peer):
    chunk = 1

    def __init__(self):
        super().__init__("minidl", "step")

    def load(self, case):
        super().load(case)
        self.model.train_on_batch(self.x[: case.batch], self.y[: case.batch])  # resolves the loss
        self.begin(case)
        size = self.x.shape[1], self.x.itemsize
        self.together = min(batches_together(case.batch, *size), case.batches)
        self.fused = FusedStep(self.model, case.batch, self.together)
        self.rows = np.concatenate([np.arange(len(self.x))[case.rows(step)] for step in range(case.batches)])

    def run(self, steps):
        fused, x, y, size = self.fused.run, self.x, self.y, self.case.batch
        last = self.done + steps
        while self.done < last:
            first = self.done % self.case.batches
            count = min(self.together, last - self.done, self.case.batches - first)
            fused(x, y, self.rows[first * size : (first + count) * size], None, check_finite=True)
            self.done += count
