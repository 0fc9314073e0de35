"""A trace: what Keras did in a fit, step by step, as arrays in one .npz file (no pickles, no code)."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minidl.backend import Array

FORMAT = 1


@dataclass
class Trace:
    """One recorded fit. P parameters, flat, in the order of get_weights(); E epochs; S steps recorded in full.

    versions: of Keras, its backend, NumPy and Python. settings: seed, epochs, batch_size, samples.
    tensors: (name, shape) of each parameter, such as ("dense/kernel", (4, 4)).
    history: metric -> one value an epoch. orders: (E, samples), the rows in the order trained on.
    masks: dropout layer -> (steps, batch_size, units) of uint8, 1 = kept, 255 = no such row.
    theta_start: (P,), the initial weights. step_theta, step_m, step_v: (S, P), after each of the first S steps.
    epoch_theta, epoch_m, epoch_v: (E, P), after each epoch.
    """

    versions: dict[str, str]
    settings: dict[str, int]
    tensors: list[tuple[str, tuple[int, ...]]]
    history: dict[str, list[float]]
    orders: Array
    masks: dict[str, Array]
    theta_start: Array
    step_theta: Array
    step_m: Array
    step_v: Array
    epoch_theta: Array
    epoch_m: Array
    epoch_v: Array


ARRAYS = ("orders", "theta_start", "step_theta", "step_m", "step_v", "epoch_theta", "epoch_m", "epoch_v")


def save(trace: Trace, path: str | Path) -> None:
    """Write a trace; the file appears whole or not at all."""
    header = {
        "format": FORMAT,
        "versions": trace.versions,
        "settings": trace.settings,
        "tensors": trace.tensors,
        "history": trace.history,
        "masks": {name: list(mask.shape) for name, mask in trace.masks.items()},
    }
    arrays: dict[str, Any] = {name: getattr(trace, name) for name in ARRAYS}
    arrays |= {f"mask_{name}": np.packbits(mask == 1) for name, mask in trace.masks.items()}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    try:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | Path) -> Trace:
    """Read a trace. Errors: ValueError if the file is not a whole trace of this format."""
    try:
        # Opened here, so that it is closed also where numpy gives up on a damaged file.
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            if header["format"] != FORMAT:
                raise ValueError(f"format {header['format']}, expected {FORMAT}")
            arrays = {name: file[name] for name in ARRAYS}
            masks = {
                name: _unpacked(file[f"mask_{name}"], shape, header["settings"])
                for name, shape in header["masks"].items()
            }
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a whole trace of minidl's: {error}. Record it again.") from error
    return Trace(
        versions=header["versions"],
        settings=header["settings"],
        tensors=[(name, tuple(shape)) for name, shape in header["tensors"]],
        history=header["history"],
        masks=masks,
        **arrays,
    )


def _unpacked(bits: Array, shape: list[int], settings: dict[str, int]) -> Array:
    """Bits as a mask, with 255 in the rows that the last batch of an epoch does not have."""
    mask = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape)
    batch_size, samples = settings["batch_size"], settings["samples"]
    steps_per_epoch = -(-samples // batch_size)
    last = samples - batch_size * (steps_per_epoch - 1)
    mask[steps_per_epoch - 1 :: steps_per_epoch, last:] = 255
    return mask
