"""Who is compared: a name, its module in this folder, and what has to be installed.

A peer's module has a class Peer, made in a process of its own with the entry's options:

    load(case)        the network with the case's weights, a new optimizer, the data where the peer wants them
    run(steps)        train on the next batches, and return when it is done
    weights()         kernels and biases as NumPy arrays, in the order of the layers
    predict(x)        the outputs for NumPy's x, as a NumPy array
    chunk             run takes multiples of it without more overhead a step: what one call of the peer does
    outer_epsilon     whether its Adam adds ε outside, as torch does; see verify.Adam
    restarts          whether each run begins with a new Adam (absent: no)
    shuffle()         of those with a fit: take the rows in a new order in each epoch from now on
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One peer. needs: modules that must be there. environment: what its process is started with.

    penalties: whether it offers L1 and dropout.
    """

    module: str
    options: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    penalties: bool = True

    def missing(self) -> str | None:
        """What is not installed, and how to install it; None if all is there."""
        for name in self.needs:
            if importlib.util.find_spec(name) is None:
                return f"{name} is not installed ({INSTALL.get(name, f'pip install {name}')})"
        return None


INSTALL = {
    "tensorflow": "pip install 'minidl[keras]'",
    "numba": "pip install 'minidl[numba]'",
    "torch": "its CPU build, see pytorch.org/get-started",
    "sklearn": "pip install scikit-learn",
}


def keras(backend: str, mode: str) -> Entry:
    module = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}[backend]
    options = {"library": "keras", "mode": mode, "outer_epsilon": False}
    return Entry("keras_names", options, ("keras", module), {"KERAS_BACKEND": backend})


# As `import minidl` sets it where NumPy is not loaded yet, which in these processes it is: see minidl/threads.py.
MINIDL_FIRST = {"OPENBLAS_THREAD_TIMEOUT": "21"}
NUMBA = {"BENCHMARK_ELEMENTWISE": "numba"}
WITH_NUMBA = "minidl with Numba"
FLOOR = "NumPy, GEMMs only"
MINIDL_STEP, MINIDL_FIT = "minidl, fit's step", "minidl fit"

PEERS: dict[str, Entry] = {
    FLOOR: Entry("floor"),
    MINIDL_STEP: Entry("minidl_step", environment=MINIDL_FIRST),
    MINIDL_FIT: Entry("keras_names", {"library": "minidl", "mode": "fit"}, environment=MINIDL_FIRST),
    f"{WITH_NUMBA}, fit's step": Entry("minidl_step", needs=("numba",), environment=MINIDL_FIRST | NUMBA),
    f"{WITH_NUMBA}, fit": Entry(
        "keras_names", {"library": "minidl", "mode": "fit"}, ("numba",), environment=MINIDL_FIRST | NUMBA
    ),
    "minidl train_on_batch": Entry(
        "keras_names", {"library": "minidl", "mode": "train_on_batch"}, environment=MINIDL_FIRST
    ),
    "JAX, lax.scan": Entry("jax_step", {"scan": True}, ("jax",)),
    "JAX, jit a step": Entry("jax_step", {"scan": False}, ("jax",)),
    "TensorFlow, tf.function": Entry("tensorflow_step", {"xla": False}, ("tensorflow",)),
    "TensorFlow, XLA": Entry("tensorflow_step", {"xla": True}, ("tensorflow",)),
    "torch, eager": Entry("torch_step", {"form": "eager"}, ("torch",)),
    "torch, fused Adam": Entry("torch_step", {"form": "fused"}, ("torch",)),
    "torch.compile": Entry("torch_step", {"form": "compile"}, ("torch",)),
    "Keras on TensorFlow, fit": keras("tensorflow", "fit"),
    "Keras on TensorFlow, train_on_batch": keras("tensorflow", "train_on_batch"),
    "Keras on JAX, fit": keras("jax", "fit"),
    "Keras on JAX, train_on_batch": keras("jax", "train_on_batch"),
    "Keras on torch, fit": keras("torch", "fit"),
    "Keras on torch, train_on_batch": keras("torch", "train_on_batch"),
    "scikit-learn, fit": Entry("sklearn_step", {"mode": "fit"}, ("sklearn",), penalties=False),
    "scikit-learn, partial_fit": Entry("sklearn_step", {"mode": "partial_fit"}, ("sklearn",), penalties=False),
}
FITS = [name for name in PEERS if name.endswith(" fit")]

# No peers, but processes of their own too.
OTHERS = {"operations": Entry("operations")}
