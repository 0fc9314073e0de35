"""What a training step's time is spent on, call by call: python benchmarks/step_profile.py [A B C D E].

Each bound call of a FusedStep is timed in its place in real steps; the least of many rounds counts, since whatever else
the machine does can only add to it. The last lines give the products alone (np.matmul, as ops.py calls it, and np.dot,
as fused.py does), the whole step, and fit.
"""

import sys
import time
from functools import partial
from itertools import pairwise

import numpy as np

from minidl import fused, utils
from minidl.fused import FusedStep
from minidl.layers import Dense, Input
from minidl.models import Sequential

CASES = {
    "A": ((4, 4, 4, 1), 32, 300),
    "B": ((30, 64, 64, 1), 32, 200),
    "C": ((784, 256, 128, 1), 128, 60),
    "D": ((784, 1024, 1024, 1), 256, 12),
    "E": ((2048, 2048, 2048, 1), 512, 5),
}


class Timed:
    """A call, and the least nanoseconds that it took."""

    def __init__(self, call):
        self.call, self.least = call, 2**62

    def __call__(self, *arguments):
        start = time.perf_counter_ns()
        result = self.call(*arguments)
        self.least = min(self.least, time.perf_counter_ns() - start)
        return result


def built(widths):
    utils.set_random_seed(1)
    hidden = [Dense(units, activation="relu") for units in widths[1:-1]]
    model = Sequential([Input((widths[0],)), *hidden, Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


def products(widths, rows, multiply):
    """The products of one step, forward and backward."""
    rng = np.random.default_rng(0)
    kernels = [rng.normal(size=shape).astype(np.float32) for shape in pairwise(widths)]
    arrays = [rng.normal(size=(rows, units)).astype(np.float32) for units in widths]
    calls = [partial(multiply, a, k, np.empty_like(b)) for a, k, b in zip(arrays, kernels, arrays[1:], strict=False)]
    for i in reversed(range(len(kernels))):
        calls.append(partial(multiply, arrays[i].T, arrays[i + 1], np.empty_like(kernels[i])))
        if i:
            calls.append(partial(multiply, arrays[i + 1], kernels[i].T, np.empty_like(arrays[i])))
    return lambda: [call() for call in calls]


def name_of(call):
    function = getattr(call, "func", call)
    return getattr(function, "__name__", "relu").replace("<lambda>", "relu: maximum")


def profile(name):
    widths, rows, rounds = CASES[name]
    model = built(widths)
    together = fused.batches_together(rows, widths[0], 4)
    samples = rows * together
    x = np.random.default_rng(0).normal(size=(samples, widths[0])).astype(np.float32)
    y = (x[:, :1] > 0).astype(np.float32)
    step = FusedStep(model, rows, together)
    order = np.random.default_rng(1).permutation(samples)
    run = partial(step.run, x, y, order, None, check_finite=True)
    whole, fit = Timed(run), Timed(partial(model.fit, x, y, batch_size=rows, verbose=0, epochs=3))
    floors = {"np.matmul": Timed(products(widths, rows, np.matmul)), "np.dot": Timed(products(widths, rows, np.dot))}
    for _ in range(rounds):
        for timed in (*floors.values(), whole, fit):
            timed()
    nothing = Timed(int)
    for _ in range(1000):
        nothing()
    updates = {id(call) for of_part in step._update._calls.values() for calls in of_part for call in calls}
    lists = {"forward": step._forward, "backward": step._backward}
    for calls in lists.values():
        for of_one_batch in calls:
            of_one_batch[:] = [Timed(call) for call in of_one_batch]
    step._loss._squares[:] = [Timed(call) for call in step._loss._squares]
    around = {"gather": step._inputs, "update_metrics": step._loss, "prepare": step._update}
    for attribute, owner in around.items():
        setattr(owner, attribute, Timed(getattr(owner, attribute)))
    for _ in range(rounds):
        run()
    found = {}
    for part, calls in [*lists.items(), ("check", [step._loss._squares[:1]])]:
        for i, timed in enumerate(calls[0]):
            least = min(of_one[i].least for of_one in calls if i < len(of_one)) - nothing.least
            key = f"{'update' if id(timed.call) in updates else part}: {name_of(timed.call)}"
            found[key] = found.get(key, 0) + least / 1e3
    for attribute, owner in around.items():
        found[f"batches together: {attribute}"] = getattr(owner, attribute).least / together / 1e3
    total = whole.least / together / 1e3
    found["between the calls"] = max(0.0, total - sum(found.values()))
    floor = floors["np.matmul"].least / 1e3
    print(f"\n{name}: {'-'.join(map(str, widths))}, batch {rows}, {together} batches together")
    for key, microseconds in sorted(found.items(), key=lambda item: -item[1]):
        print(f"  {key:36s} {microseconds:12.2f} µs {microseconds / total:6.1%}")
    print(f"  products alone: {', '.join(f'{key} {timed.least / 1e3:.2f} µs' for key, timed in floors.items())}")
    print(
        f"  step: {total:.2f} µs, {total / floor:.2f} of np.matmul's; fit: {fit.least / together / 3e3:.2f} µs a step"
    )


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        profile(case)
