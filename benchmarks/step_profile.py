"""What a training step's time is spent on, call by call: python benchmarks/step_profile.py [--save] [A B C D E].

Each bound call of a FusedStep is timed in its place in real steps, over many rounds; where Numba is installed, of the
step with its loops too. Beside them: the products alone (np.matmul, as ops.py calls it, and np.dot, as fused.py does),
the whole step, and fit. Ratios are to the first.
--save: also into results/profile.json, of which report.py makes a table.
"""

import importlib.util
import json
import sys
import time
from functools import partial
from importlib import metadata
from itertools import pairwise

import numpy as np
import peers
import report

from minidl import config, fused, utils
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


OF_SPREAD = ("median", "q1", "q3", "min")


class Timed:
    """A call, and the seconds that a share of it took each time: it does so many times as much."""

    def __init__(self, call, share=1):
        self.call, self.share, self.times = call, share, []

    def __call__(self, *arguments):
        start = time.perf_counter_ns()
        result = self.call(*arguments)
        self.times.append((time.perf_counter_ns() - start) * 1e-9 / self.share)
        return result

    def spread(self):
        """Median, quartiles and least, of a share."""
        return report.spread(self.times)


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


def profile(name, elementwise="numpy"):
    config.set_elementwise(elementwise)
    widths, rows, rounds = CASES[name]
    model = built(widths)
    together = fused.batches_together(rows, widths[0], 4)
    samples = rows * together
    x = np.random.default_rng(0).normal(size=(samples, widths[0])).astype(np.float32)
    y = (x[:, :1] > 0).astype(np.float32)
    step = FusedStep(model, rows, together)
    order = np.random.default_rng(1).permutation(samples)
    run = partial(step.run, x, y, order, None, check_finite=True)
    whole = Timed(run, together)
    fit = Timed(partial(model.fit, x, y, batch_size=rows, verbose=0, epochs=3), 3 * together)
    floors = [Timed(products(widths, rows, multiply)) for multiply in (np.matmul, np.dot)]
    for _ in range(rounds):
        for timed in (*floors, whole, fit):
            timed()
    nothing = Timed(int)
    for _ in range(1000):
        nothing()
    updates = {id(call) for of_part in step._update._calls.values() for calls in of_part for call in calls}
    parts = {"forward": step._forward, "backward": step._backward}
    for calls in (*parts.values(), [step._loss._squares]):
        for of_one_batch in calls:
            of_one_batch[:] = [Timed(call) for call in of_one_batch]
    parts["check"] = [step._loss._squares[:1]]
    around = {"gather": step._inputs, "update_metrics": step._loss, "prepare": step._update}
    for attribute, owner in around.items():
        setattr(owner, attribute, Timed(getattr(owner, attribute), together))
    for _ in range(rounds):
        run()
    found = {}

    def add(key, timed):
        into = found.setdefault(key, dict.fromkeys(OF_SPREAD, 0.0))
        spread, clock = timed.spread(), nothing.spread()["median"] / timed.share
        for name in into:
            into[name] += max(0.0, spread[name] - clock)

    for part, calls in parts.items():
        for timed in calls[0]:
            add(f"{'update' if id(timed.call) in updates else part}: {name_of(timed.call)}", timed)
    for attribute, owner in around.items():
        add(f"batches together: {attribute}", getattr(owner, attribute))
    minidl, total = peers.WITH_NUMBA if elementwise == "numba" else "minidl", whole.spread()
    rest = {key: max(0.0, total[key] - sum(one[key] for one in found.values())) for key in OF_SPREAD}
    named = {
        peers.FLOOR: floors[0].spread(),
        "GEMMs only, by np.dot": floors[1].spread(),
        f"{minidl}, fit's step": total,
        f"{minidl}, fit": fit.spread(),
        **dict(sorted(found.items(), key=lambda item: -item[1]["median"])),
        "between the calls": rest,
    }
    group = f"{name} {'-'.join(map(str, widths))}, batch {rows}, {minidl}"
    return [{**spread, "group": group, "name": key, "rounds": rounds} for key, spread in named.items()]


def main(*arguments):
    """Profile the cases that are named, or all, and print their tables."""
    raw = report.machine_info()
    cases = [one for one in arguments if one != "--save"] or CASES
    kinds = [kind for kind in config.ELEMENTWISE if importlib.util.find_spec(kind)]
    rows = [row for case in cases for kind in kinds for row in profile(case, kind)]
    found = {"about": report.machine(raw), "benchmarks": rows, "skipped": []}
    if "numba" in kinds:
        found["about"]["versions"]["numba"] = metadata.version("numba")
    print(report.tables("profile", found))
    if "--save" in arguments:
        path = report.HERE / "results" / "profile.json"
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
