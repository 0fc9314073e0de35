"""Checks of what a user hands over, with messages that say what was expected, what came, and what to do."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from minidl.backend import Array

_budgets: list[int] = []  # of the at_most_scalars() that are open: how many scalars may still be made


@contextlib.contextmanager
def at_most_scalars(count: int) -> Iterator[None]:
    """Inside, weights of so many scalars may be made in all: what a file holds, whatever sizes it declares."""
    _budgets.append(count)
    try:
        yield
    finally:
        _budgets.pop()


def take_scalars(where: str, shape: tuple[int, ...]) -> None:
    """Count the scalars of a weight before it is made. Errors: ValueError beyond at_most_scalars()."""
    if _budgets:
        _budgets[-1] -= math.prod(shape)
        if _budgets[-1] < 0:
            raise ValueError(f"{where}: a weight of shape {shape} is larger than what the file holds.")


# Why minidl does not support an argument of Keras's.
_REASONS = {
    "autocast": "all is computed in the layer's own dtype",
    "batch_size": "batches may have any size",
    "embeddings_freq": "there are no Embedding layers",
    "embeddings_metadata": "there are no Embedding layers",
    "input_tensor": "there are no symbolic tensors; call layers on Input(…)",
    "input_tensors": "there are no symbolic tensors; the copy makes its own Input",
    "lora_alpha": "low-rank adapters are for networks too large to be trained whole",
    "lora_rank": "low-rank adapters are for networks too large to be trained whole",
    "mask": "there are no masks of time steps",
    "max_shard_size": "weights go into one file",
    "optional": "a model has one input",
    "profile_batch": "there is no TensorFlow graph to profile",
    "quantization_config": "weights are floats",
    "ragged": "arrays are dense",
    "sparse": "arrays are dense",
    "synchronized": "there is one device",
    "tensor": "there are no symbolic tensors; call layers on Input(…)",
    "use_multiprocessing": "each batch is made when it is trained on, in this process",
    "workers": "each batch is made when it is trained on, in this process",
    "zipped": "a model goes into one file, which can be replaced whole; a folder cannot",
}


def refuse_unsupported(where: str, **arguments: tuple[Any, Any]) -> None:
    """Raise if an argument of Keras's that minidl does not support was set: name=(value, Keras's default)."""
    for name, (value, default) in arguments.items():
        if value is not default and not (np.isscalar(value) and value == default):
            reason = f" ({_REASONS[name]})" if name in _REASONS else ""
            raise NotImplementedError(
                f"{where}: {name}={value!r} is an argument of Keras that minidl does not support{reason}; leave it at "
                f"{default!r}."
            )


def refuse_unknown(where: str, arguments: dict[str, Any], known: Iterable[str] = ()) -> None:
    """Raise for keyword arguments that neither Keras nor minidl knows, naming the nearest of the known ones."""
    if arguments:
        import difflib  # slow to import, and seldom needed

        nearest = difflib.get_close_matches(next(iter(arguments)), list(known), n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"{where}: unrecognized keyword arguments: {', '.join(map(repr, arguments))}.{hint}")


def positive_int(where: str, name: str, value: Any) -> int:
    """value as an int ≥ 1. Errors: ValueError."""
    if not _is_int(value) or value < 1:
        raise ValueError(f"{where}: {name} must be a positive integer; got {value!r}.")
    return int(value)


def non_negative_int(where: str, name: str, value: Any) -> int:
    """value as an int ≥ 0. Errors: ValueError."""
    if not _is_int(value) or value < 0:
        raise ValueError(f"{where}: {name} must be a non-negative integer; got {value!r}.")
    return int(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))


def finite_float(where: str, name: str, value: Any, *, at_least: float = -math.inf) -> float:
    """value as a finite float, not below a limit. Errors: ValueError."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ValueError(f"{where}: {name} must be a number; got {value!r} of type {type(value).__name__}.")
    if not math.isfinite(value) or value < at_least:
        limit = "finite" if at_least == -math.inf else f"finite and at least {at_least:g}"
        raise ValueError(f"{where}: {name} must be {limit}; got {value!r}.")
    return float(value)


def same_form(where: str, **arrays: Array) -> None:
    """Raise a ValueError unless all arrays have one shape and dtype."""
    shapes, dtypes = {a.shape for a in arrays.values()}, {a.dtype for a in arrays.values()}
    if len(shapes) > 1 or len(dtypes) > 1:
        *first, last = arrays
        described = ", ".join(f"{a.dtype}{a.shape}" for a in arrays.values())
        raise ValueError(f"{where}: {', '.join(first)} and {last} must have one shape and dtype; got {described}.")


def positive_float(where: str, name: str, value: Any) -> float:
    """value as a finite float above 0. Errors: ValueError."""
    number = finite_float(where, name, value)
    if number <= 0:
        raise ValueError(f"{where}: {name} must be above 0; got {value!r}.")
    return number


def of_one(name: str, data: Any, key: str | None = None) -> Any:
    """The one array that comes in a list or tuple of one, as Keras takes it, or in a dict of one under a key; or data.

    Of x, a list of one array of one axis is one sample, as every list of samples is.
    Errors: ValueError for a dict with other keys.
    """
    least = 2 if name == "x" else 1
    if isinstance(data, (list, tuple)) and len(data) == 1 and len(getattr(data[0], "shape", ())) >= least:
        return data[0]
    if isinstance(data, dict) and key is not None:
        if set(data) != {key}:
            raise ValueError(
                f"{name}: expected an array, or a dict with the one input's name {key!r}; got {list(data)}."
            )
        return data[key]
    return data


def as_array(name: str, data: Any) -> Array:
    """data as a NumPy array, in its own dtype, sharing its memory where that can be.

    Arrays with DLPack (torch, JAX, …) or __array__; pandas frames and series of numbers and bools, missing values as
    NaN; whatever else numpy.asarray takes.
    What is in a GPU's memory is copied. Errors: TypeError for a sparse matrix, columns that hold no numbers (named),
    and what its library does not give out; ValueError for rows of several lengths.
    """
    if isinstance(data, np.ndarray):
        return data
    if isinstance(data, dict):
        raise TypeError(f"{name}: a dict is for models with several inputs or outputs; pass the one array, not {{…}}.")
    pandas = sys.modules.get("pandas")  # never imported: a frame cannot exist before someone imported it
    if pandas is not None and isinstance(data, (pandas.DataFrame, pandas.Series)):
        return _pandas_array(name, data)
    kind = f"{type(data).__module__.partition('.')[0]}.{type(data).__name__}"
    if hasattr(data, "nnz") and hasattr(data, "toarray"):
        raise TypeError(f"{name}: sparse matrices are not supported; got {kind}. Pass {name}.toarray().")
    try:
        return _exported(data)
    except (BufferError, RuntimeError, TypeError) as error:
        raise TypeError(f"{name}: {kind} does not give its numbers out: {error}") from None


_HOST_MEMORY = (1, 3, 11, 13)  # DLPack's kDLCPU, kDLCUDAHost, kDLROCMHost, kDLCUDAManaged


def _exported(data: Any) -> Array:
    """data's memory by DLPack, or what its __array__ or numpy.asarray makes of it; from a GPU, a copy of it.

    Errors: TypeError for memory of another device that its library does not copy.
    """
    if hasattr(data, "__dlpack__") and hasattr(data, "__dlpack_device__"):
        try:
            device = int(data.__dlpack_device__()[0])
        except ValueError as error:  # torch's "meta" tensors
            raise TypeError(error) from None
        if device not in _HOST_MEMORY:
            return _copied_from(device, data)
        try:
            return np.from_dlpack(data)
        except (BufferError, RuntimeError, TypeError):
            if not hasattr(data, "__array__"):
                raise
    return np.asarray(data)


def _copied_from(device: int, data: Any) -> Array:
    """A copy in the CPU's memory of what is on another device: by CuPy's get(), torch's cpu(), or by DLPack."""
    for method in ("get", "cpu"):
        if hasattr(data, method):
            return np.asarray(getattr(data, method)())
    try:
        return np.from_dlpack(data, device="cpu")
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(
            f"it is not in the CPU's memory (DLPack device type {device}), where the model computes, and is not copied "
            f"there: {error}. Copy it first, or train on the GPU, with device='gpu'"
        ) from None


def _pandas_array(name: str, data: Any) -> Array:
    """The values of a frame or a series, in their dtype if it is one of NumPy's for all, else in float64."""
    from pandas.api.types import is_numeric_dtype  # bool and nullable dtypes count as numeric

    columns = [(data.name, data.dtype)] if data.ndim == 1 else list(data.dtypes.items())
    wrong = [f"{column!r} ({dtype})" for column, dtype in columns if not is_numeric_dtype(dtype)]
    if wrong:
        raise TypeError(
            f"{name}: expected columns of numbers; these are not: {', '.join(wrong)}. Encode them first, for instance "
            f"with pandas.get_dummies, or leave them out."
        )
    dtypes = [dtype for _, dtype in columns]
    if dtypes and isinstance(dtypes[0], np.dtype) and all(dtype == dtypes[0] for dtype in dtypes):
        return data.to_numpy()
    return data.to_numpy(dtype="float64", na_value=np.nan)


def numeric_array(name: str, data: Any, dtype: str, *, check_finite: bool = True) -> Array:
    """data as a C-ordered array of dtype: (samples, …), not empty, finite unless check_finite=False.

    Accepts what as_array accepts. The memory is data's own where the dtype is that already.
    Errors: TypeError if it does not hold real numbers; ValueError if it has no rows, or names the first place
    that holds a NaN or an infinity.
    """
    if data is None:
        raise ValueError(f"{name}: the data are missing. Pass an array with a row for each sample.")
    try:
        array = as_array(name, data)
    except ValueError as error:
        raise ValueError(f"{name}: expected an array of numbers with rows of one length; {error}.") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{name}: expected real numbers (float, integer or bool); got dtype {array.dtype}. "
            f"Convert text, dates and objects to numbers first."
        )
    if array.ndim == 0:
        raise ValueError(f"{name}: expected an array with a row for each sample; got the single value {array!r}.")
    if array.size == 0:
        raise ValueError(f"{name}: expected at least one sample; got an empty array of shape {array.shape}.")
    with np.errstate(over="ignore"):  # a float64 beyond float32's range becomes an infinity, reported below
        converted = np.ascontiguousarray(array, dtype=dtype)
    if check_finite and not _all_finite(converted):
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(converted))[0])
        came = array[where]
        beyond = f", beyond the range of {dtype}" if np.isfinite(came) else ""
        count = int((~np.isfinite(converted)).sum())
        raise ValueError(
            f"{name}: expected finite numbers; {name}[{', '.join(map(str, where))}] is {came}{beyond} "
            f"({count} such in all). Clean the data, or pass check_finite=False to let them through."
        )
    return converted


def _all_finite(array: Array) -> bool:
    """Whether there is no NaN or infinity, looked at in pieces: the array may be a memory map larger than memory."""
    flat, piece = array.reshape(-1), 2**20
    return all(np.isfinite(flat[start : start + piece]).all() for start in range(0, flat.size, piece))


def features(x: Any, dtype: str, input_shape: tuple[int | None, ...] | None, *, check_finite: bool = True) -> Array:
    """x as (samples, …, features) of dtype; with a sample's input_shape known, of that shape.

    As in Keras a last axis of 1 is added, or taken off, where the rank asks for it.
    Errors: as numeric_array; ValueError for another rank or size.
    """
    array = numeric_array("x", x, dtype, check_finite=check_finite)
    if input_shape is not None:
        if array.ndim == len(input_shape) and input_shape[-1] == 1:
            array = array[..., None]
        elif array.ndim == len(input_shape) + 2 and array.shape[-1] == 1:
            array = array[..., 0]
    if array.ndim < 2 or (input_shape is not None and array.ndim != 1 + len(input_shape)):
        known = input_shape is not None and len(input_shape) > 1
        expected = f"(samples, {str(input_shape)[1:]}" if known else "(samples, features)"
        hint = " A single sample is x[None, :]." if array.ndim == 1 else ""
        raise ValueError(f"x: expected shape {expected}; got {array.shape}.{hint}")
    if input_shape is not None and any(
        size not in (None, came) for size, came in zip(input_shape, array.shape[1:], strict=True)
    ):
        raise ValueError(
            f"x: the model takes {input_shape[-1]} features a sample; got shape {array.shape}, "
            f"{array.shape[-1]} features."
        )
    return array


def labels(
    y: Any,
    dtype: str,
    outputs: tuple[int | None, ...],
    *,
    sparse: bool = False,
    any_shape: bool = False,
    check_finite: bool = True,
) -> Array:
    """y as an array of dtype and of the outputs' shape (samples, …, units); without the last axis if that is 1, or with
    one of size 1 more.

    sparse: y holds class numbers, (samples, …) or (samples, …, 1), and is left in that shape. any_shape: so is what has
    another shape than the outputs, which a loss of one's own may take.

    Errors: as numeric_array; ValueError for another length or shape.
    """
    array = numeric_array("y", y, dtype, check_finite=check_finite)
    samples, units = outputs[0], outputs[-1]
    if array.shape[0] != samples:
        raise ValueError(f"x and y must have the same number of samples; x has {samples}, y has {array.shape[0]}.")
    if sparse:
        if array.shape not in (outputs[:-1], (*outputs[:-1], 1)):
            raise ValueError(
                f"y: the loss takes class numbers, {outputs[:-1]} or {(*outputs[:-1], 1)}; got {array.shape}. For a "
                f"column for each class take the loss 'categorical_crossentropy'."
            )
        return array
    if array.shape == outputs[:-1] and units == 1:
        array = array[..., None]
    elif array.shape == (*outputs, 1):
        array = array[..., 0]
    if array.shape != outputs and not any_shape:
        raise ValueError(f"y: the model has {units} outputs, so y must be {outputs}; got {array.shape}.")
    return array


def weights_per_sample(
    y: Any,
    sample_weight: Any,
    class_weight: Any,
    dtype: str,
    outputs: tuple[int | None, ...],
    *,
    check_finite: bool = True,
) -> Array | None:
    """The weights of the losses from sample_weight or class_weight; None where neither is given.

    sample_weight: one for each loss, (samples, …) or (samples, …, 1) of outputs (samples, …, units); an axis of size 1
    stands for all, so that (samples, 1) is one for each sample.
    class_weight maps a class, the label rounded to an integer, to its weight; a class without one weighs 1.
    Errors: ValueError if both are given, or the length or shape is wrong.
    """
    samples = outputs[0]
    if sample_weight is not None and class_weight is not None:
        raise ValueError("sample_weight and class_weight cannot be given at the same time; multiply them first.")
    if class_weight is not None:
        if not isinstance(class_weight, dict):
            raise TypeError(f"class_weight must be a dict of class: weight; got {type(class_weight).__name__}.")
        known = {key: finite_float("class_weight", repr(key), value) for key, value in class_weight.items()}
        for key in known:
            if not isinstance(key, (int, float, np.integer, np.floating)) or key % 1 != 0:
                raise ValueError(f"class_weight: a class must be an integer, such as 0 or 1; got {key!r}.")
        if len(outputs) > 2:
            raise ValueError(f"class_weight needs one label a sample; the model's outputs are {outputs}.")
        y = np.asarray(y)
        classes = y.reshape(samples) if y.size == samples else y.argmax(axis=-1)
        return np.array([known.get(float(c), 1.0) for c in np.round(classes)], dtype)
    if sample_weight is None:
        return None
    array = numeric_array("sample_weight", sample_weight, dtype, check_finite=check_finite)
    losses = outputs[:-1]
    shape = array.shape[:-1] if array.ndim == len(losses) + 1 and array.shape[-1] == 1 else array.shape
    fits = len(shape) == len(losses) and shape[0] == samples
    if not fits or any(came not in (1, size) for came, size in zip(shape[1:], losses[1:], strict=True)):
        raise ValueError(
            f"sample_weight must have one weight a {'sample' if len(outputs) == 2 else 'loss'}, shape {losses}; "
            f"got {array.shape}."
        )
    array = array.reshape(shape)
    return array if shape == losses else np.broadcast_to(array, [size or 1 for size in losses])


def same_shapes(where: str, names: list[str], expected: list[tuple[int, ...]], dtype: str, weights: Any) -> list[Array]:
    """Copies of weights as arrays of dtype and of the expected shapes, checked all before any is used.

    Errors: TypeError for weights that are no sequence or no real numbers; ValueError for a wrong number, shape or
    a value that is not finite in dtype, naming the weight.
    """
    if not isinstance(weights, (list, tuple, np.ndarray)):
        raise TypeError(f"{where}: expected a list of arrays; got {weights!r} of type {type(weights).__name__}.")
    if len(weights) != len(expected):
        raise ValueError(
            f"{where}: expected {len(expected)} arrays ({', '.join(names) or 'none'}); got {len(weights)}. "
            f"No weight was changed."
        )
    arrays = []
    for name, shape, weight in zip(names, expected, weights, strict=True):
        array = as_array(f"{where}: {name}", weight)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{where}: {name} must hold real numbers; got dtype {array.dtype}.")
        if array.shape != shape:
            raise ValueError(f"{where}: {name} has shape {shape}; got {array.shape}. No weight was changed.")
        with np.errstate(over="ignore"):
            array = np.array(array, dtype)  # a copy: the weights given may be views of those to be written
        if not np.isfinite(array).all():
            raise ValueError(f"{where}: {name} holds a NaN or an infinity in {dtype}. No weight was changed.")
        arrays.append(array)
    return arrays


def same_state(where: str, own: dict[str, Array], state: Any) -> dict[str, Array]:
    """state as arrays with the names, shapes and dtypes of own, checked all before any is used.

    Errors: TypeError if it is no dict; ValueError for a missing or unknown name, another shape, a number that is not
    finite, or a float where own has an integer.
    """
    if not isinstance(state, dict):
        raise TypeError(f"{where}: expected a dict of arrays; got {type(state).__name__}.")
    if state.keys() != own.keys():
        raise ValueError(f"{where}: expected the entries {list(own)}; got {list(state)}. Nothing was changed.")
    found = {}
    for name, expected in own.items():
        array = np.asarray(state[name])
        if array.dtype.kind not in ("iu" if expected.dtype.kind == "i" else "fiu"):
            raise ValueError(f"{where}: {name} must be {expected.dtype}; got {array.dtype}. Nothing was changed.")
        if array.shape != expected.shape or not np.isfinite(array).all():
            raise ValueError(
                f"{where}: {name} must be finite, of shape {expected.shape}; got shape {array.shape}"
                f"{'' if np.isfinite(array).all() else ' with a NaN or an infinity'}. Nothing was changed."
            )
        found[name] = array.astype(expected.dtype)
    return found
