"""What is trained: the networks A to E, their data and their initial weights, the same for every peer.

NumPy only, and loaded by a worker after its framework.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

LEARNING_RATE, BETA_1, BETA_2, EPSILON = 1e-3, 0.9, 0.999, 1e-7  # Keras's defaults
SEED = 7


@dataclass(frozen=True)
class Case:
    """A network of ReLU layers and one sigmoid, trained by Adam on binary cross-entropy.

    widths: from the inputs to the output. batches: how many different ones there are. l1: penalty of the first hidden
    layer's kernel, l2: of the second's. rates: of the dropout after each of these two.
    """

    name: str
    widths: tuple[int, ...]
    batch: int
    batches: int
    l1: float = 0.0
    l2: float = 0.0
    rates: tuple[float, float] = (0.0, 0.0)

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(inputs, units) of each layer."""
        return list(pairwise(self.widths))

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum((inputs + 1) * units for inputs, units in self.layers)

    @property
    def flop(self) -> int:
        """Of a step's matrix products: forward, the kernels' gradients, and the inputs' but for the first layer's."""
        products = [inputs * units for inputs, units in self.layers]
        return 2 * self.batch * (3 * sum(products) - products[0])

    def rate(self, layer: int) -> float:
        """Of the dropout after this layer, counted from 0."""
        return self.rates[layer] if layer < min(2, len(self.layers) - 1) else 0.0

    def penalties(self, layer: int) -> tuple[float, float]:
        """λ of L1 and of L2 on this layer's kernel."""
        hidden = layer < len(self.layers) - 1
        return self.l1 if layer == 0 and hidden else 0.0, self.l2 if layer == 1 and hidden else 0.0

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """x of standard normal numbers, (batches · batch, inputs), and y of coin flips, (batches · batch, 1)."""
        rng = np.random.default_rng(SEED)
        rows = self.batches * self.batch
        x = rng.standard_normal((rows, self.widths[0]), dtype=np.float32)
        return x, rng.integers(0, 2, (rows, 1)).astype(np.float32)

    def rows(self, step: int) -> slice:
        """The rows of the batch of a step: the batches in turn."""
        start = step % self.batches * self.batch
        return slice(start, start + self.batch)

    def weights(self) -> list[np.ndarray]:
        """Kernel and bias of each layer: Glorot's uniform numbers, and small biases rather than zeros, to be seen."""
        rng, weights = np.random.default_rng(SEED + 1), []
        for inputs, units in self.layers:
            limit = np.sqrt(6 / (inputs + units))
            weights.append(rng.uniform(-limit, limit, (inputs, units)).astype(np.float32))
            weights.append(rng.uniform(-0.1, 0.1, units).astype(np.float32))
        return weights

    def notebook(self) -> Case:
        """With the penalties and the dropout of the class notebook."""
        return replace(self, l1=0.1, l2=0.1, rates=(0.8, 0.5))

    def without_dropout(self) -> Case:
        return replace(self, rates=(0.0, 0.0))


CASES = {
    case.name: case
    for case in (
        Case("A", (4, 4, 4, 1), 32, 128),
        Case("B", (30, 64, 64, 1), 32, 128),
        Case("C", (784, 256, 128, 1), 128, 32),
        Case("D", (784, 1024, 1024, 1), 256, 8),
        Case("E", (2048, 2048, 2048, 1), 512, 2),
    )
}


class DeepCase(Case):
    """A case of He's wider kernels, with which neither values nor gradients vanish by the depth, or turn subnormal."""

    def weights(self):
        return [w * np.float32(np.sqrt(2)) if w.ndim == 2 else w for w in super().weights()]


def grown(axis: str, size: int) -> Case:
    """The case of test_growth.py of this width, batch or depth."""
    if axis == "depth":
        return DeepCase(f"depth {size}", (64,) * (size + 1) + (1,), 128, 1)
    width, batch = (size, 128) if axis == "width" else (256, size)
    return Case(f"{axis} {size}", (width,) * 4 + (1,), batch, 1)


class PositiveCase(Case):
    """A case of positive inputs and small positive weights, so that no unit rests, and of y = 0, so that σ − y ≥ ½."""

    def data(self):
        x, y = super().data()
        return np.abs(x) + np.float32(0.5), np.zeros_like(y)

    def weights(self):
        return [np.abs(w) / 4 + np.float32(0.02) for w in super().weights()]


# One row: a step shows which units were dropped.
MASKS = PositiveCase("masks", (4, 4, 4, 1), 1, 1, 0.1, 0.1, (0.8, 0.5))


def describe(case: Case) -> str:
    """ "A 4-4-4-1, batch 32"."""
    return f"{case.name} {'-'.join(map(str, case.widths))}, batch {case.batch}"


class Penguins(Case):
    """The notebook's data, standardized; the last batch is smaller."""

    def data(self):
        from minidl import datasets

        (x, y), (test, _) = datasets.penguins.load_data()
        return datasets.standardize(x, test)[0].astype(np.float32), y.reshape(-1, 1).astype(np.float32)


PENGUINS = Penguins("penguins", (4, 4, 4, 1), 32, 9, 0.1, 0.1)
SYNTHETIC = Case("60,000 rows", (784, 256, 128, 1), 120, 500)
