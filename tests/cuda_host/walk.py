"""The walk of kernels/README.md on the host: a training step as separate launches, and all of them in one.

    python tests/cuda_host/walk.py     prints the page's table of host times

The times are of this machine's CPU, where a CUDA thread is a fiber and a barrier a hundred switches between them: they
show what a launch and a barrier cost here, and nothing of a GPU.
"""

import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

if __name__ == "__main__":  # in a process of its own there is no pytest to set the path
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from cuda_host import checks, host

from minidl import batches, keras, many, on_device, random, utils
from minidl.layers import Dense, Dropout
from minidl.oracle import notebook


class StepOfLaunches:
    """A training step of a model as launches of dropout.cu, matmul.cu, dense.cu, bce.cu and adam.cu, one after another.

    In the order of sums of train_step.cu, and so with its bits: matmul_naive, and dense_backward by blocks of one row.
    """

    def __init__(self, model, rows, dtype):
        self.model, self.rows, self.dtype, self.launches = model, rows, np.dtype(dtype), 0
        self.kernels = {
            stem: checks.Kernels(stem, dtype, None) for stem in ("dropout", "matmul", "dense", "bce", "adam")
        }
        self.theta, self.grads, self.m, self.v = (host.array(np.zeros(model.arena.size, dtype)) for _ in range(4))
        self.theta[...] = model.arena.theta
        self.layers, start, below = [], 0, model.input_shape[-1]
        stops, factors = [], []
        for layer in model.flat_layers():
            if isinstance(layer, Dense):
                size = below * layer.units
                views = [buffer[start : start + size + layer.units] for buffer in (self.theta, self.grads)]
                parts = [(view[:size].reshape(below, layer.units), view[size:]) for view in views]
                stops += [start + size, start + size + layer.units]
                plan = many._settings(layer, ())
                factors += [plan[:2], plan[2:]]
                start, units = stops[-1], layer.units
            else:
                parts, units = [], below
            outputs, d_outputs = (host.empty((rows, units), dtype) for _ in range(2))
            state = host.array(layer.seed_generator.state) if isinstance(layer, Dropout) else None
            self.layers.append((layer, below, units, parts, outputs, d_outputs, state))
            below = units
        l1, l2 = (host.array([factor[i] for factor in factors], dtype) for i in range(2))
        self.segments = host.array(stops, np.int64), l1, l2, len(stops)
        self.iterations, self.alpha = host.array([0], np.int64), host.empty(1, dtype)
        self.rates = host.array([model.optimizer.rate], dtype), host.array([0], np.int64)  # of all steps the first
        self.partials, self.loss = host.empty(checks.tiles(rows, 64), dtype), host.empty(1, dtype)

    def launch(self, stem, kernel, *arguments, grid=1, block=128):
        self.launches += 1
        self.kernels[stem](kernel, *arguments, grid=grid, block=block)

    def step(self, x, y):
        """One step on the batch x (rows, I), y (rows, 1)."""
        rows, optimizer = self.rows, self.model.optimizer
        activations = {
            layer: on_device.ACTIVATIONS[layer.activation] for layer, *_ in self.layers if isinstance(layer, Dense)
        }
        inputs, top = x, self.layers[-1][0]
        for layer, below, units, parts, outputs, _, state in self.layers:
            if parts:
                (kernel, bias), _ = parts
                self.launch("matmul", "matmul_naive", inputs, kernel, outputs, rows, units, below, below, 1, units, 1)
                code = activations[layer] if layer is not top else 0  # the loss wants logits
                self.launch("dense", "dense_forward", outputs, bias, None, outputs, outputs.size, units, code)
            else:
                self.launch("dropout", "dropout", inputs, outputs, outputs.size, state, layer.rate, 0)
            inputs = outputs
        logits, d = self.layers[-1][4:6]
        self.launch("bce", "bce_from_logits", y, logits, None, d, self.partials, rows, 1, block=64)
        self.launch("bce", "bce_mean", self.partials, self.loss, len(self.partials), rows, block=64)
        for k in range(len(self.layers) - 1, -1, -1):
            layer, below, units, parts, outputs, d, state = self.layers[k]
            inputs, d_below = (x, None) if k == 0 else self.layers[k - 1][4:6]
            if parts:
                (kernel, _), (d_kernel, d_bias) = parts
                code = activations[layer] if layer is not top else 0
                self.launch("dense", "dense_backward", d, outputs, d, d_bias, rows, units, code, block=(32, 1))
                self.launch("matmul", "matmul_naive", inputs, d, d_kernel, below, units, rows, 1, below, units, 1)
                if d_below is not None:
                    sizes = (rows, below, units)
                    self.launch("matmul", "matmul_naive", d, kernel, d_below, *sizes, units, 1, 1, units)
            else:
                self.launch("dropout", "dropout_backward", d, d_below, d.size, state, layer.rate, 0)
                state[1] += 1
        betas = (optimizer.beta_1, optimizer.beta_2)
        self.launch("adam", "adam_alpha", self.iterations, self.alpha, *self.rates, *betas, block=32)
        rest = (1 - betas[0], 1 - betas[1], optimizer.epsilon)
        arrays = (self.theta, self.grads, self.m, self.v)
        self.launch("adam", "adam_step", *arrays, self.theta.size, self.alpha, *rest, *self.segments)


def built(name, dtype):
    """(model, x, y): a model of the notebook, and its data as the model takes them."""
    (x, y), _ = notebook.data()
    utils.set_random_seed(notebook.SEED)
    model = notebook.MODELS[name](keras)
    data = model._batches("fit", x, y, None, None, 32, None, True, True)
    return model, data.x, data.y


def both_ways(name, dtype, steps):
    """(StepOfLaunches, model): the state after so many whole batches, by separate launches and by one."""
    model, x, y = built(name, dtype)
    order = random.epoch_order(len(x), 32, True)[: 32 * steps]
    separate = StepOfLaunches(model, 32, dtype)
    for rows in np.split(order, steps):
        separate.step(host.array(x[rows]), host.array(y[rows]))
    data = batches.ArrayBatches((x[order], y[order], None), 32, False)
    launch = checks.launcher(checks.Kernels("train_step", dtype, None))
    many.train(many.Plan.of(model), [model], data, [], np.arange(len(order))[None], 1, launch, True)
    return separate, model


def times(calls, repeats=30):
    """The least seconds of each call, measured by turns."""
    least = [float("inf")] * len(calls)
    for _ in range(repeats):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            least[i] = min(least[i], time.perf_counter() - start)
    return least


def stages():
    """(section of the page, what runs, seconds): the rows of its table, in float32."""
    rng, dtype = np.random.default_rng(0), "float32"
    adam, dropout, matmul, dense, bce = (
        checks.Kernels(stem, dtype, None) for stem in ("adam", "dropout", "matmul", "dense", "bce")
    )
    size = 4545
    arrays = [host.array(np.abs(checks.normal(rng, size, dtype))) for _ in range(4)]
    rest = (host.array([0.01], dtype), 0.1, 0.001, 1e-7, None, None, None, 0)
    parts = [[host.array(a[i : i + 505]) for a in arrays] for i in range(0, size, 505)]
    state, given = host.array([1, 2], np.int64), host.array(np.ones(4096, dtype))
    out = host.empty(4096, dtype)
    a, b = (host.array(checks.normal(rng, (64, 64), dtype)) for _ in range(2))
    c, sizes = host.empty((64, 64), dtype), (64, 64, 64, 64, 1, 64, 1)
    y, logits = host.array(rng.integers(0, 2, 4096).astype(dtype)), host.array(checks.normal(rng, 4096, dtype))
    d, partials = host.empty(4096, dtype), host.empty(4096, dtype)
    bias = host.array(np.zeros(64, dtype))
    elementwise = partial(dense, "dense_forward", given, bias, None, out, 4096, 64, 1, grid=4, block=256)
    launches = [
        ("1", "`adam_step`, 4,545 parameters in 9 launches, an array each",
         lambda: [adam("adam_step", *part, 505, *rest, grid=2, block=256) for part in parts]),
        ("1", "the same in one launch, as one arena",
         lambda: adam("adam_step", *arrays, size, *rest, grid=18, block=256)),
        ("2", "`dense_forward`, bias and ReLU of 64 × 64 elements, an element a thread", elementwise),
        ("2", "`dropout` of as many: four elements a thread, flags drawn from Philox",
         lambda: dropout("dropout", given, out, 4096, state, 0.5, 0, grid=4, block=256)),
        ("3", "`matmul_naive`, 64 × 64 × 64", lambda: matmul("matmul_naive", a, b, c, *sizes, grid=16, block=256)),
        ("3", "`matmul_tiled`: two barriers for every 16 products of a thread",
         lambda: matmul("matmul_tiled", a, b, c, *sizes, grid=(4, 4), block=(16, 16))),
        ("3", "`matmul_blocked`: two barriers for every 256",
         lambda: matmul("matmul_blocked", a, b, c, *sizes, grid=(1, 1), block=(16, 16))),
        ("4", "`dense_forward`, bias and sigmoid of 64 × 64 elements, no sum",
         partial(dense, "dense_forward", given, bias, None, out, 4096, 64, 2, grid=4, block=256)),
        ("4", "`bce_from_logits` of as many: loss and gradient, a sum over each block",
         lambda: bce("bce_from_logits", y, logits, None, d, partials, 4096, 1, grid=4, block=256)),
        ("5", "`dense_softmax` of as many: a maximum and a sum over each row, by its warp",
         lambda: dense("dense_softmax", a, None, None, c, 64, 64, grid=8, block=256)),
    ]  # fmt: skip
    found = [(stage, what, [call]) for stage, what, call in launches]
    for name, title in (("L1 and L2", "without"), ("L1, L2 and dropout", "with")):
        model, x, y = built(name, dtype)
        separate, launch = StepOfLaunches(model, 32, dtype), checks.launcher(checks.Kernels("train_step", dtype, None))
        data = batches.ArrayBatches((x[:32], y[:32], None), 32, False)
        whole = batches.ArrayBatches((x[:256], y[:256], None), 32, False)
        plan = many.Plan.of(model)
        batch = host.array(x[:32]), host.array(y[:32])
        separate.step(*batch)
        count = separate.launches

        def train(data, epochs, model=model, plan=plan, launch=launch):
            many.train(plan, [model], data, [], np.arange(data.samples)[None], epochs, launch, True)

        step = partial(separate.step, *batch)
        found += [
            ("6", f"a step of 4-4-4-1 {title} dropout, batch 32: {count} launches", [step]),
            ("7", "the same step by `train_epochs`, one launch a step", [partial(train, data, 1)]),
            ("7", "80 steps by `train_epochs` in one launch: each step", [partial(train, whole, 10), 80]),
        ]
    return [
        (stage, what, seconds / (call[1] if len(call) > 1 else 1))
        for (stage, what, call), seconds in zip(found, times([call[0] for _, _, call in found]), strict=True)
    ]


BEGIN = ("9 launches", "`dense_forward`", "`matmul_naive`", "a step of")  # what a comparison begins with


def table():
    """The table of kernels/README.md: times in units of what their comparison begins with; on stderr in µs."""
    lines, first = ["| section | what runs | host time |", "|---|---|---:|"], 1.0
    for section, what, seconds in stages():
        first = seconds if any(words in what for words in BEGIN) else first
        sys.stderr.write(f"{1e6 * seconds:8.1f} µs  {what}\n")
        lines.append(f"| {section} | {what} | {seconds / first:.2g} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
