"""Files of models: Keras's .keras and .weights.h5, both ways and without TensorFlow, and safetensors.

A file is data: it is read whole, checked, and nothing in it is ever run; see FileFormatError. It is written to a
temporary file and renamed, so that at any moment the old one or the new one is there whole.
"""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from minidl import checks
from minidl.backend import Array
from minidl.saving import hdf5, state, tensors
from minidl.saving.files import (
    MEMBERS,
    FileFormatError,
    may_write,
    parsed_json,
    read_bytes,
    reading,
    unzipped,
    write_atomically,
    zipped,
)
from minidl.saving.objects import (
    check_metadata,
    deserialize_keras_object,
    deserialize_model,
    metadata,
    refuse_unsafe,
    serialize_keras_object,
    serialize_model,
)
from minidl.serialization import (
    CustomObjectScope,
    custom_object_scope,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
    sharing,
)

__all__ = [
    "CustomObjectScope",
    "FileFormatError",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "load_model",
    "load_weights",
    "register_keras_serializable",
    "save_model",
    "save_weights",
    "serialize_keras_object",
]

_LEGACY = (".h5", ".hdf5")
_PICKLED = ("metadata.json", "config.json", "weights.npz")


# --------------------------------------------------------------------------------------- whole models


def save_model(model: Any, filepath: Any, overwrite: bool = True, zipped: bool | None = None, **kwargs: Any) -> None:
    """Write architecture, weights, optimizer and random seeds to a .keras file, which Keras loads too.

    overwrite=False: ask before a file is replaced. What compile was given is written as well.
    Errors: ValueError for another ending; NotImplementedError for zipped=False (a folder cannot be replaced whole);
    ImportError without h5py; TypeError or ValueError for objects that cannot be written, such as lambdas.
    """
    checks.refuse_unsupported("save", zipped=(None if zipped else zipped, None))
    if not kwargs.pop("include_optimizer", True):
        raise NotImplementedError("save: include_optimizer=False is for Keras's legacy .h5 files; use save_weights.")
    checks.refuse_unknown("save", kwargs, ["overwrite", "zipped"])
    path = os.fspath(filepath)
    if path.endswith(_LEGACY):
        raise NotImplementedError(
            f"save: {path}: whole models in .h5 are Keras's legacy format, which minidl does not write; save as .keras."
        )
    if not path.endswith(".keras"):
        raise ValueError(f"save: the name must end in .keras; got {path!r}.")
    hdf5.require_h5py()
    if not model.built:
        warnings.warn(f"save: {model.name} is not built, so the file holds no weights.", stacklevel=3)
    if may_write(path, overwrite):
        write_atomically(path, _packed(model))


def load_model(
    filepath: Any, custom_objects: Mapping[str, Any] | None = None, compile: bool = True, safe_mode: bool = True
) -> Any:
    """The model of a .keras file, minidl's or Keras's: the next step of training is the one it would have taken.

    custom_objects: name -> class or function of your own that the model is made of. compile=False: without optimizer,
    loss and metrics. The random seeds, which Keras forgets, go on where they were in a file of minidl's.
    Errors: FileNotFoundError; FileFormatError, a ValueError, for a file that is damaged, of another format, or holds
    code or classes that were not handed over; ImportError without h5py; NotImplementedError for safe_mode=False.
    """
    refuse_unsafe("load_model", safe_mode)
    path = os.fspath(filepath)
    if path.endswith(_LEGACY):
        _refuse_legacy(path)
    data = read_bytes(path)
    if not path.endswith(".keras"):
        raise FileFormatError(f"{path}: the name of a model's file ends in .keras. See load_weights for weights alone.")
    hdf5.require_h5py()
    with reading(path):
        members = unzipped(data)
        arrays = hdf5.read(members["model.weights.h5"])
        model, plan = _assembled(members, arrays, custom_objects, compile=compile)
    return _applied(model, plan)


def _packed(model: Any) -> bytes:
    names, arrays = state.collect(model)
    return zipped(dict(zip(MEMBERS, (*_described(model), hdf5.write(names, arrays)), strict=True)))


def _described(model: Any) -> tuple[bytes, bytes]:
    """metadata.json and config.json."""
    with sharing():
        config = serialize_model(model)
    return json.dumps(metadata()).encode(), json.dumps(config).encode()


def _assembled(
    members: dict[str, bytes], arrays: dict[str, Array], custom_objects: Mapping[str, Any] | None, *, compile: bool
) -> tuple[Any, state.Plan]:
    check_metadata(parsed_json("metadata.json", members["metadata.json"]))
    config = parsed_json("config.json", members["config.json"])
    with checks.at_most_scalars(state.count_of_weights(arrays)):
        model = deserialize_model(config, custom_objects, compile=compile)
    plan = state.plan_weights(model, arrays, skip_mismatch=False)
    state.plan_optimizer(plan, model, arrays)
    state.plan_seeds(plan, model, _seeds(arrays))
    return model, plan


def _applied(model: Any, plan: state.Plan) -> Any:
    """The model, with the plan's values; what is left out is warned of."""
    if plan.failures:
        plan.notes.append(f"load_weights: left as they were: {'; '.join(plan.failures)}.")
    for note in plan.notes:
        warnings.warn(note, stacklevel=4)
    plan.apply()
    return model


def _seeds(arrays: dict[str, Array]) -> dict[str, Array]:
    start = f"{state.SEEDS}/"
    return {path.removeprefix(start): array for path, array in arrays.items() if path.startswith(start)}


# -------------------------------------------------------------------------------------- weights alone


def save_weights(model: Any, filepath: Any, overwrite: bool = True, max_shard_size: Any = None) -> None:
    """Write the weights to a .weights.h5 file, which Keras loads too, or to a .safetensors file.

    .weights.h5 holds the optimizer's state as well, as Keras's do, and the random seeds; .safetensors the weights, as
    "layers/dense/kernel", …, and the seeds.
    Errors: ValueError for a model that is not built or another ending; NotImplementedError for max_shard_size;
    ImportError without the package of the format.
    """
    checks.refuse_unsupported("save_weights", max_shard_size=(max_shard_size, None))
    path = os.fspath(filepath)
    if not path.endswith((".weights.h5", ".safetensors")):
        raise ValueError(f"save_weights: the name must end in .weights.h5 or .safetensors; got {path!r}.")
    _require_built("save_weights", model)
    if path.endswith(".safetensors"):
        own = {"seeds": {place: seed.tolist() for place, seed in state.seeds(model).items()}}
        data = tensors.write(_named_weights(model), own)
    else:
        data = hdf5.write(*state.collect(model))
    if may_write(path, overwrite):
        write_atomically(path, data)


def load_weights(model: Any, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
    """Take over the weights of a .weights.h5, .keras or .safetensors file, minidl's or Keras's, for a model like its.

    With the optimizer's state, where the file has one and the model is compiled; an optimizer that holds no slots yet
    is left, with a warning, as in Keras. skip_mismatch: leave layers that do not fit, with a warning.
    Errors: FileNotFoundError; FileFormatError, a ValueError, for a file that does not fit or is damaged: then nothing
    is changed. ValueError for a model that is not built; NotImplementedError for by_name and objects_to_skip.
    """
    by_name, skip = kwargs.pop("by_name", None), kwargs.pop("objects_to_skip", None)
    checks.refuse_unknown("load_weights", kwargs, ["skip_mismatch"])
    checks.refuse_unsupported("load_weights", objects_to_skip=(skip, None))
    path = os.fspath(filepath)
    if by_name is not None:
        raise ValueError(f"load_weights: by_name is for legacy .h5 files alone, as in Keras; got {path!r}.")
    if path.endswith(_LEGACY) and not path.endswith(".weights.h5"):
        _refuse_legacy(path)
    if not path.endswith((".weights.h5", ".keras", ".safetensors")):
        raise ValueError(f"load_weights: the name must end in .weights.h5, .keras or .safetensors; got {path!r}.")
    _require_built("load_weights", model)
    data = read_bytes(path)
    if path.endswith(".safetensors"):
        tensors.require()
        with reading(path):
            plan = _plan_of_tensors(model, *tensors.read(data), skip_mismatch=skip_mismatch)
    else:
        hdf5.require_h5py()
        with reading(path):
            arrays = hdf5.read(unzipped(data)["model.weights.h5"] if path.endswith(".keras") else data)
            plan = state.plan_weights(model, arrays, skip_mismatch=skip_mismatch)
            state.plan_optimizer(plan, model, arrays)
            state.plan_seeds(plan, model, _seeds(arrays))
    _applied(model, plan)


def _require_built(where: str, model: Any) -> None:
    if not model.built:
        raise ValueError(
            f"{where}: model {model.name!r} is not built, so it has no weights yet. Build it first: Input(shape=…) "
            f"as its first layer, build((None, features)), or call it on data."
        )


def _refuse_legacy(path: str) -> None:
    raise FileFormatError(
        f"{path}: whole models and weights in .h5 are Keras's legacy format, which minidl does not read. Load it in "
        f"Keras, and save it there as model.save('name.keras') or model.save_weights('name.weights.h5')."
    )


def _named_weights(model: Any) -> dict[str, Array]:
    """The weights by "layers/dense/kernel", …: not by the layers' names, which are counted anew for each model."""
    leaves = [(path, layer) for path, layer in state.walk(model) if not state.inner_layers(layer)]
    return {
        f"{path}/{name}": weight for path, layer in leaves for name, weight in (layer.parameters | layer.state).items()
    }


def _plan_of_tensors(model: Any, arrays: dict[str, Array], own: dict[str, Any], *, skip_mismatch: bool) -> state.Plan:
    plan = state.Plan()
    weights = _named_weights(model)
    for name, weight in weights.items():
        value = arrays.get(name)
        if value is None or value.shape != weight.shape or value.dtype.kind not in "fiub":
            came = "nothing" if value is None else f"{value.dtype}{value.shape}"
            plan.failures.append(f"{name} is {weight.dtype}{weight.shape}; the file has {came} for it")
        else:
            plan.writes.append((weight, value))
    unknown = sorted(set(arrays) - set(weights))
    if unknown:
        plan.failures.append(f"the model has no {', '.join(unknown[:5])}")
    if plan.failures and not skip_mismatch:
        raise ValueError(f"the weights do not fit the model: {plan.failures[0]}")
    seeds = own.get("seeds", {})
    if not isinstance(seeds, dict):
        raise ValueError(f"the seeds in the header must be a dict; got {seeds!r}")
    state.plan_seeds(plan, model, {path: np.asarray(seed) for path, seed in seeds.items()})
    return plan


# ------------------------------------------------------------------------------ pickle and copy.deepcopy


def to_bytes(model: Any) -> bytes:
    """All of save_model's without h5py, for pickle and copy.deepcopy: metadata, config and the arrays as .npz."""
    _, arrays = state.collect(model)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return zipped(dict(zip(_PICKLED, (*_described(model), buffer.getvalue()), strict=True)))


def from_bytes(data: bytes, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The model of to_bytes(). Errors: FileFormatError."""
    import zipfile  # slow to import, and seldom needed

    with reading("the pickled model"):
        members = unzipped(data, _PICKLED)
        with zipfile.ZipFile(io.BytesIO(members["weights.npz"])) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > 2 * len(data):
                raise ValueError("the arrays declare more than the bytes hold")
        with np.load(io.BytesIO(members["weights.npz"]), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        model, plan = _assembled(members, arrays, custom_objects, compile=True)
    return _applied(model, plan)
