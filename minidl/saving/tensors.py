"""Weights as safetensors: plain arrays by name, layers/dense/kernel, …, without code, links or compression."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from minidl.backend import Array
from minidl.saving.hdf5 import checksum


def _library() -> Any:
    try:
        import safetensors.numpy as library
    except ImportError:
        raise ImportError("safetensors files need the package: pip install 'minidl[safetensors]'.") from None
    return library


def write(arrays: dict[str, Array], own: dict[str, Any]) -> bytes:
    """arrays by name; own: what minidl keeps beside them, as JSON in the header, with a SHA-256 of all."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps(own)
    metadata = {"format": "minidl", "minidl": text, "sha256": checksum(contiguous, text)}
    written: bytes = _library().save(contiguous, metadata)
    return written


def read(data: bytes) -> tuple[dict[str, Array], dict[str, Any]]:
    """(arrays by name, own) of write(); own is {} in a file of others.

    Errors: ValueError for arrays that are not those that were written; what the library raises for a damaged file.
    """
    found: dict[str, Array] = _library().load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = header.get("__metadata__") or {}
    if metadata.get("format") != "minidl" and not {"minidl", "sha256"} & metadata.keys():
        return found, {}
    text = str(metadata.get("minidl"))
    if metadata.get("sha256") != checksum(found, text):
        raise ValueError("the arrays are not those that were written: their SHA-256 differs")
    own = json.loads(text)
    if not isinstance(own, dict):
        raise ValueError(f"the header's 'minidl' must be a dict; got {own!r}")
    return found, own


def require() -> None:
    """Raise ImportError, naming the extra, unless safetensors is there."""
    _library()
