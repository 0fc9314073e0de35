"""The demo's traces of Keras's own fit; python -m minidl.oracle.notebook_record writes those that ship."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minidl.backend import Array
from minidl.oracle import checking
from minidl.oracle.recorder import installed_keras
from minidl.oracle.steps import State, Step
from minidl.oracle.trace import Trace, save

DETAILED_STEPS = 180  # steps whose weights and slots are kept: twenty epochs of the penguins


def record(
    build: Callable[[Any], Any],
    x: Array,
    y: Array,
    *,
    validation_data: tuple[Array, Array] | None,
    epochs: int,
    batch_size: int,
    seed: int,
    detailed_steps: int = DETAILED_STEPS,
) -> Trace:
    """Train build(keras), which is trained by Adam, twice: plainly, and recorded. Rows of x must differ.

    Errors: ImportError without Keras; ValueError for equal rows, since a batch tells its rows; RuntimeError if the two
    runs do not end in the same bits.
    """
    keras = installed_keras("tensorflow")
    if len(np.unique(x, axis=0)) != len(x):
        raise ValueError("record: the rows of x must differ from each other, so that a batch tells its rows.")
    arguments: dict[str, Any] = {"validation_data": validation_data, "epochs": epochs, "batch_size": batch_size}

    def built() -> Any:
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(seed)
        return build(keras)

    plain = built()
    history = plain.fit(x, y, verbose=0, **arguments).history
    watched = built()
    states: list[State] = []
    rows: list[Array] = []
    masks: dict[str, list[Array]] = {}

    def keep(step: Step) -> None:
        if not states:
            states.append(step.before)
        states.append(step.after)
        rows.extend(np.asarray(step.x))
        for name, mask in (step.noise or {}).items():
            masks.setdefault(name, []).append(mask)

    about = checking.record(watched, x, y, keep, **arguments)
    if any(a.tobytes() != b.tobytes() for a, b in zip(plain.get_weights(), watched.get_weights(), strict=True)):
        raise RuntimeError("record: the run that was looked into differs from the plain run; nothing is recorded.")

    theta = np.array([_flat(state.weights) for state in states])
    m, v = (np.array([_flat(state.slots[slot]) for state in states]) for slot in ("m", "v"))
    ends = np.arange(1, epochs + 1) * -(-len(x) // batch_size)  # theta[0] is before the first step
    detailed = slice(1, 1 + detailed_steps)
    return Trace(
        versions=about["versions"],
        settings={"seed": seed, "epochs": epochs, "batch_size": batch_size, "samples": len(x)},
        tensors=[(name, weight.shape) for name, weight in states[0].weights.items()],
        history={name: [float(value) for value in values] for name, values in history.items()},
        orders=_orders(x, rows, epochs),
        masks={name: _stacked(drawn, batch_size) for name, drawn in masks.items()},
        theta_start=theta[0],
        step_theta=theta[detailed],
        step_m=m[detailed],
        step_v=v[detailed],
        epoch_theta=theta[ends],
        epoch_m=m[ends],
        epoch_v=v[ends],
    )


def _flat(tensors: dict[str, Array]) -> Array:
    return np.concatenate([tensor.ravel() for tensor in tensors.values()])


def _orders(x: Array, rows: list[Array], epochs: int) -> Array:
    """The row numbers of the batches, (epochs, samples)."""
    row_of = {row.tobytes(): number for number, row in enumerate(x)}
    numbers = [row_of[row.tobytes()] for row in rows]
    return np.array(numbers, np.int16 if len(x) < 2**15 else np.int64).reshape(epochs, len(x))


def _stacked(masks: list[Array], batch_size: int) -> Array:
    """Masks as one array of uint8, 255 in the rows that a partial batch does not have."""
    stacked = np.full((len(masks), batch_size, masks[0].shape[1]), 255, np.uint8)
    for step, mask in enumerate(masks):
        stacked[step, : len(mask)] = mask
    return stacked


def main() -> None:
    """Record the notebook's two models into minidl/data."""
    from minidl.oracle import notebook

    for name, file in notebook.FILES.items():
        trace = notebook.record_live(name)
        path = Path(__file__).parents[1] / "data" / file
        save(trace, path)
        print(f"{name}: {path.name}, {path.stat().st_size / 1024:.0f} KiB, made with {trace.versions}")


if __name__ == "__main__":
    main()
