"""Weights in HDF5 as Keras lays them out: datasets layers/dense/vars/0, …, and nothing else in the file."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np

from minidl.backend import Array

# Keras looks up the paths that it knows, and so ignores this group.
OWN = "minidl"
# An array: HDF5 1.14 reads a damaged string of an attribute without end, so that no attribute is read here.
_SHA256 = f"{OWN}/sha256"
_DEEPEST = 64


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise ImportError(
            "Keras's files need the package h5py: pip install 'minidl[h5]'. Without it, save_weights('x.safetensors'), "
            "pickle and copy.deepcopy work."
        ) from None
    return h5py


def require_h5py() -> None:
    """Raise ImportError, naming the extra, unless h5py is there."""
    _h5py()


def checksum(arrays: dict[str, Array], text: str = "") -> str:
    """SHA-256 of a text and of arrays by path: of each its path, dtype, shape and bytes."""
    import hashlib  # slow to import, and seldom needed

    digest = hashlib.sha256(text.encode())
    for path in sorted(arrays):
        array = np.ascontiguousarray(arrays[path])
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(json.dumps([path, little.dtype.str, list(np.shape(arrays[path]))]).encode())
        digest.update(little.tobytes())
    return digest.hexdigest()


def write(names: dict[str, str], arrays: dict[str, Array]) -> bytes:
    """arrays by path as an HDF5 file; names: the group of each object -> its name, written as Keras writes it.

    A SHA-256 of the arrays is kept beside them: HDF5 has none.
    """
    h5py = _h5py()
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for path, name in names.items():
            file.create_group(path).attrs["name"] = name
        for path, array in arrays.items():
            file[path] = np.asarray(array)
        file[_SHA256] = np.frombuffer(bytes.fromhex(checksum(arrays)), np.uint8)
    return buffer.getvalue()


def read(data: bytes) -> dict[str, Array]:
    """All datasets by path.

    Errors: ValueError for anything but groups and plain arrays of numbers that lie in the file as they are (links,
    other files, virtual or compressed data, references), a group within itself, and arrays that are not those that
    were written; whatever h5py raises for a file that is damaged.
    """
    if not data.startswith(b"\x89HDF\r\n\x1a\n"):
        raise ValueError("this is no HDF5 file")
    h5py = _h5py()
    found: dict[str, Array] = {}
    with h5py.File(io.BytesIO(data), "r") as file:
        _read_group(h5py, file, "", found, [len(data)], set())
    tops = {path.partition("/")[0] for path in found}
    if not tops <= {"layers", "optimizer", OWN}:
        raise ValueError(f"expected the groups layers and optimizer; found {sorted(tops)[:10]}")
    if OWN in tops:
        expected = found.pop(_SHA256, np.empty(0)).tobytes()
        if expected.hex() != checksum(found):
            raise ValueError("the arrays are not those that were written: their SHA-256 differs")
    return found


def _read_group(h5py: Any, group: Any, path: str, found: dict[str, Array], left: list[int], seen: set[int]) -> None:
    address = h5py.h5o.get_info(group.id).addr
    if address in seen or path.count("/") > _DEEPEST:
        raise ValueError(f"group {path or '/'!r} lies within itself, or is there twice")
    seen.add(address)
    for key in group:
        place = f"{path}{key}"
        link = group.get(key, getclass=True, getlink=True)
        if link is not h5py.HardLink:
            raise ValueError(f"{place!r} is a {link.__name__}: links are refused, for they may lead out of the file")
        item = group[key]
        if isinstance(item, h5py.Group):
            _read_group(h5py, item, f"{place}/", found, left, seen)
        elif isinstance(item, h5py.Dataset):
            found[place] = _read_dataset(item, place, left)
        else:
            raise ValueError(f"{place!r} is neither a group nor an array")


def _read_dataset(dataset: Any, place: str, left: list[int]) -> Array:
    if dataset.external:
        raise ValueError(f"{place!r} lies in another file, which is refused")
    if dataset.is_virtual:
        raise ValueError(f"{place!r} is a view of other arrays, which is refused")
    if dataset.dtype.kind not in "fiub" or dataset.shape is None:
        raise ValueError(f"{place!r} holds no numbers, but {dataset.dtype}")
    size = math.prod(dataset.shape) * dataset.dtype.itemsize
    if dataset.compression is not None or dataset.fletcher32 or dataset.shuffle or dataset.scaleoffset is not None:
        raise ValueError(f"{place!r} is compressed, as Keras writes none; undo it with h5repack -f NONE")
    if size > left[0] or (size and dataset.id.get_storage_size() != size):
        raise ValueError(f"{place!r} declares shape {dataset.shape}, {size} bytes, which the file does not hold")
    left[0] -= size
    return np.asarray(dataset[()])
