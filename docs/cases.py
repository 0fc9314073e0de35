"""Run the cases of tests/cases and write docs/cases.md: python docs/cases.py, as `make docs` does."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from cases import NAMES, keras, parts, shown  # noqa: E402

REPORT = """
## A report that could be sent to Keras: an update without a batch

`Model.fit` on TensorFlow, in graph mode with `steps_per_execution=1`, of a generator, or any dataset of unknown
cardinality: in every epoch that runs out of data `optimizer.iterations` grows by one more than there were batches,
weight decay is applied once more, and every `Dropout` skips a mask. `multi_step_on_iterator` calls
`iterator.get_next()` inside the compiled function; when it fails, the operations of the inlined step that do not depend
on the batch have run already.

```python
{script}
```
```text
5 0.03125
```

Expected 4 and 0.0625, as with `run_eagerly=True`, `jit_compile=True` or `steps_per_execution=2`. Got 5 and 0.03125.

## Another: NaN of an orthogonal penalty under XLA

`OrthogonalRegularizer` divides rows or columns by max(norm, ε), so that one of zeros has the derivative 0 run eagerly
and in a graph. With `jit_compile=True` it is NaN, and so are the weights after one step.

```python
{orthogonal}
```
```text
[[0. 0.]] [[nan  0.]]
```

Expected the same twice. A `NonNeg` constraint, or a kernel that starts from zeros, makes such columns.

## One for TensorFlow: not greater is not at most

The graph optimizer replaces `logical_not(greater(p, t))`, where nothing else uses the comparison, by
`less_equal(p, t)`:
of NaN the one is true and the other false.

```python
{negation}
```
```text
[ True] [False]
```

Expected the same twice. So outputs that are NaN are false negatives of a Keras metric run eagerly, and none in a graph.

## Another: NaN of a norm of 0, on JAX, on torch and under XLA

`keras.ops.normalize`, and with it `UnitNormalization` and `CosineSimilarity`, multiplies x with the smaller of 1/√Σx²
and 1/ε. Where all x are 0, the outputs of a dead ReLU for one, the derivative of the root is infinite and that of the
minimum 0. Their product is 0 on TensorFlow, whose gradient of rsqrt asks for that case, and NaN with
`jit_compile=True`, on JAX (0.10.2) and on torch (2.13.0).

```python
{normalize}
```
```text
[[1.e+10 1.e+10]]
[[nan nan]]
```

Expected the same twice. With `KERAS_BACKEND=jax` or `torch` it prints `[[nan nan]]` twice.

## Another: penalties of activities that are left out, on JAX run eagerly

`Layer.add_loss` remembers a loss by its `id`, in `_loss_ids`, and not the loss itself. An id is given anew once its
object is gone: where a layer still has the id of an old loss, `_clear_losses` takes another layer's new one for its
own and drops it. The oracle came by it in a random model: metric loss, step 1, in one of some hundred fits.

Here the weights stay as they are and the batch is the same, so that there is one loss.

```python
{activity}
```
```text
1
```

Expected 1. With `KERAS_BACKEND=jax` (0.10.2) it prints 5 to 8: some 7 % of the steps lack a penalty.

## One for torch: a factor recomputed from what has changed since

`torch.compile` (2.13.0) does not keep a factor for backward that it can recompute from the inputs, and recomputes it
from an input that was written to in the meantime, under `no_grad` (pytorch pull request 197039, open, mends it).

```python
{recomputed}
```
```text
1.0
2.0
```

Expected 1.0 twice. So with `jit_compile=True` on torch, `BatchNormalization(renorm=True)` scales its outputs with the
running deviation from before the step, and their gradients with that from after it. The oracle came by it in a random
model: slot m, step 0.
"""
SCRIPT = """import keras, numpy as np


def batches():
    for _ in range(4):
        yield np.zeros((2, 1)), np.zeros((2, 1))


model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
model.compile(keras.optimizers.SGD(0.5, weight_decay=1.0), "mse")
model.fit(batches(), shuffle=False, verbose=0)
print(int(model.optimizer.iterations), float(model.get_weights()[0][0, 0]))"""
ORTHOGONAL = """import keras, tensorflow as tf

penalty = keras.regularizers.OrthogonalRegularizer(0.1, "columns")


def gradient(kernel):
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        value = penalty(kernel)
    return tape.gradient(value, kernel)


kernel = tf.constant([[0.0, 1.0]])
print(gradient(kernel).numpy(), tf.function(gradient, jit_compile=True)(kernel).numpy())"""
NEGATION = """import tensorflow as tf


def at_most(p, threshold):
    return tf.logical_not(tf.greater(p, threshold))


nan = tf.constant([float("nan")])
print(at_most(nan, 0.5).numpy(), tf.function(at_most)(nan, 0.5).numpy())"""
NORMALIZE = """import keras, numpy as np

for jit_compile in (False, True):
    layers = [keras.layers.Dense(2, kernel_initializer="zeros"), keras.layers.UnitNormalization()]
    model = keras.Sequential([keras.Input((1,)), *layers])
    model.compile("sgd", "mse", jit_compile=jit_compile)
    model.fit(np.ones((1, 1)), np.ones((1, 2)), verbose=0)
    print(model.get_weights()[0])"""

ACTIVITY = """import keras, numpy as np

keras.utils.set_random_seed(0)
layers = [keras.layers.Dense(8, activity_regularizer="l1") for _ in range(8)]
model = keras.Sequential([keras.Input((8,)), *layers])
model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
x = y = np.ones((4, 8))
losses = set()
for _ in range(200):
    model.reset_metrics()
    losses.add(round(float(model.train_on_batch(x, y)), 3))
print(len(losses))"""

RECOMPUTED = """import torch


def loss(x, scale):
    factor = (1 / scale).detach()
    with torch.no_grad():
        scale.copy_(scale / 2)
    return (x * factor).sum()


for function in (loss, torch.compile(loss)):
    x, scale = torch.ones(1, requires_grad=True), torch.ones(1)
    function(x, scale).backward()
    print(x.grad.item())"""


def page() -> str:
    """The page, with the numbers of now."""
    import tensorflow as tf

    lines = [
        "# Known reports, and what the oracle says",
        "",
        f"Each row is a script in [`tests/cases`](../tests/cases), run with Keras {keras.__version__} on TensorFlow",
        f"{tf.__version__} by `docs/cases.py`; it asserts what its row says.",
        "",
        "| Case | Report | What Keras does | Shown | What the oracle says |",
        "|---|---|---|---|---|",
    ]
    for name in NAMES:
        title, report, does, says = parts(name)
        cells = [f"[{title}](../tests/cases/{name}.py)", report, does, shown(name), says]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    reports = REPORT.format(
        script=SCRIPT, orthogonal=ORTHOGONAL, negation=NEGATION, normalize=NORMALIZE, activity=ACTIVITY,
        recomputed=RECOMPUTED,
    )  # fmt: skip
    return "\n".join(lines) + "\n" + reports


def main() -> None:
    """Write the page."""
    (HERE / "cases.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
