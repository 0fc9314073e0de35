"""The matrix products of a step and nothing else: what a step in NumPy takes at least.

minidl is loaded first, so that the BLAS and its core type are those that minidl has.
"""

from minidl import cuda

import numpy as np  # after minidl, which may set up the BLAS


class Peer:
    chunk, outer_epsilon = 1, False

    def __init__(self, device="cpu"):
        self.xp = cuda.ready_cupy() if device == "gpu" else np

    def load(self, case):
        rng = np.random.default_rng(0)
        normal = lambda *shape: self.xp.asarray(rng.standard_normal(shape, dtype=np.float32))  # noqa: E731
        self.products = []  # of left and right, into an array
        self.kernels = [normal(*layer) for layer in case.layers]
        for i, (inputs, units) in enumerate(case.layers):
            a, kernel, d = normal(case.batch, inputs), self.kernels[i], normal(case.batch, units)
            pairs = [(a, kernel), (a.T, d), *([(d, kernel.T)] if i else [])]
            self.products += [
                (left, right, self.xp.empty((len(left), right.shape[1]), np.float32)) for left, right in pairs
            ]

    def run(self, steps):
        for _ in range(steps):
            for left, right, out in self.products:
                self.xp.matmul(left, right, out)
        if self.xp is not np:
            self.xp.cuda.get_current_stream().synchronize()

    def results(self):
        """(left, right, product) of each product."""
        return [tuple(a.get() if hasattr(a, "get") else a for a in product) for product in self.products]

    def predict(self, x):
        """The forward products of all rows at once."""
        self.forward = []
        for i, kernel in enumerate(self.kernels):
            a = x if i == 0 else self.forward[-1][2]
            self.forward.append((a, kernel, a @ kernel))
        return None

    def predicted(self):
        return self.forward
