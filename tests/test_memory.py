"""How much memory training takes: parameters four times over, one batch's activations, and nothing that grows."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from minidl.callbacks import LambdaCallback
from minidl.layers import Dense, Dropout, Input
from minidl.models import Sequential

ROOT = Path(__file__).parents[1]


def test_the_peak_is_four_copies_of_the_parameters_and_one_batch_s_activations(rng):
    """θ, its gradient, m and v; of a batch its inputs, each layer's outputs and dL/d(outputs); 10 % for the rest."""
    widths, rows, samples = [1000, 1500, 1500, 1], 128, 512
    x = rng.normal(size=(samples, widths[0])).astype(np.float32)
    y = rng.integers(0, 2, (samples, 1)).astype(np.float32)
    tracemalloc.start()
    hidden = [Dense(units, activation="relu") for units in widths[1:-1]]
    model = Sequential([Input((widths[0],)), *hidden, Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=rows, epochs=2, verbose=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    copies = 4 * model.count_params() * 4
    activations = 4 * rows * (widths[0] + 2 * sum(widths[1:]))
    assert copies < peak <= 1.1 * (copies + activations), f"{peak / (copies + activations):.3f} of the budget"


@pytest.mark.parametrize("follows", [False, True])
def test_nothing_grows_over_10_000_steps(rng, follows):
    """From the end of the third epoch of 1,000 steps on: by then the blocks of masks have their full size."""
    x, y = rng.normal(size=(2_000, 3)).astype(np.float32), np.ones((2_000, 1), np.float32)
    model = Sequential([Input((3,)), Dense(128, activation="relu"), Dropout(0.2), Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy")
    sizes = []
    hooks = [LambdaCallback(on_epoch_end=lambda epoch, logs: sizes.append(tracemalloc.get_traced_memory()[0]))]
    if follows:
        hooks.append(LambdaCallback(on_train_batch_end=lambda batch, logs: None))
    tracemalloc.start()
    model.fit(x, y, batch_size=2, epochs=13, verbose=0, callbacks=hooks)
    tracemalloc.stop()
    # the history's numbers and the list of sizes take some 1,500 bytes; a step that kept 1 byte would show as 10,000
    assert sizes[-1] - sizes[2] < 5_000, np.diff(sizes)


PROGRAM = """
import resource, sys
import numpy as np
from minidl.layers import Dense, Input
from minidl.models import Sequential

rows, features = 1_000_000, 100  # 400 MB, of which the file holds none
x = np.memmap(sys.argv[1], {dtype}, "r", shape=(rows, features), order={order!r})
y = np.zeros((rows, 1), np.float32)
model = Sequential([Input((features,)), Dense(8, activation="relu"), Dense(1, activation="sigmoid")])
model.compile("adam", "binary_crossentropy")
model.fit(x[:64], y[:64], verbose=0)
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + 100_000_000,) * 2)
try:
    np.ones(x.shape, np.float32)
except MemoryError:
    history = model.fit(
        x, y, batch_size=1000, steps_per_epoch=100, verbose=0, shuffle={shuffle}, validation_split=0.01
    )
    print(sorted(history.history), model.optimizer.iterations)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize(("dtype", "order", "shuffle"), [("np.float32", "C", True), ("np.float16", "F", False)])
def test_fit_on_data_larger_than_memory(tmp_path, dtype, order, shuffle):
    """A sparse file of 400 MB, mapped, in a process that may allocate 100 MB more than it has."""
    with open(tmp_path / "x", "wb") as file:
        file.truncate(400_000_000)
    program = PROGRAM.format(dtype=dtype, order=order, shuffle=shuffle)
    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "['loss', 'val_loss'] 102"
