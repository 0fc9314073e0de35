"""The step that minidl's fit runs, without the loop around it: the batch is gathered from the data by its rows."""

from minidl.fused import FusedStep

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
        self.fused = FusedStep.of(self.model, case.batch)
        self.rows = [np.arange(len(self.x))[case.rows(step)] for step in range(case.batches)]

    def run(self, steps):
        fused, x, y, rows, batches = self.fused.run, self.x, self.y, self.rows, self.case.batches
        for step in range(self.done, self.done + steps):
            fused(x, y, rows[step % batches], None, check_finite=True)
        self.done += steps
