"""Single operations of minidl, on NumPy arrays or CuPy's, and what they are measured against: a copy, and a product.

Each is right to 16 units in the last place of the formula's terms in float64, at places spread over its result; a
product and a sum within the bound of a sum. How many bytes an operation must read and write, or how many
multiplications and additions it must do, stands beside it.
"""

import os

from minidl import cuda, elementwise, ops, random

import numpy as np  # after minidl, which may set up the BLAS
import verify

SIZE = 2**24  # of float32: 64 MiB an array, more than the caches hold
ROWS, INPUTS, UNITS = 512, 2048, 2048
COPY, PRODUCT = "copy", "product of square matrices"
ADAM_BY_NUMBA = "adam_step by Numba"
RATE = 0.5
TINY = 1e-37


class Peer:
    """load(name) makes the arrays, run(times) runs the operation, check() judges its result, work() is what it does."""

    def __init__(self, device="cpu"):
        self.size = int(os.environ.get("BENCHMARK_SIZE", SIZE))
        self.xp = np
        if device == "gpu":
            self.xp = cuda.ready_cupy()

    def normal(self, *shape):
        self.drawn += 1
        numbers = np.random.default_rng(self.drawn).standard_normal(shape, dtype=np.float32)
        return self.xp.asarray(numbers)

    def load(self, name):
        self.name, self.drawn, self.done = name, 0, 0
        self.call, self.judge, self.bytes, self.flop = (OPERATIONS | KERNELS)[name](self)

    def run(self, times):
        for _ in range(times):
            self.call()
        self.done += times
        if self.xp is not np:
            self.xp.cuda.get_current_stream().synchronize()

    def work(self):
        """{"bytes": …} that must be moved, or {"flop": …}."""
        return {"flop": self.flop} if self.flop else {"bytes": self.bytes}

    def check(self):
        """Errors: verify.Wrong if the last result is not that of the formula."""
        self.judge()

    def require(self, got, right, bound):
        off = abs(host(got).astype(np.float64) - right)
        if not (off <= bound).all():
            raise verify.Wrong(f"{self.name}: off by {np.max(off):.3g}; {np.max(bound):.2g} would be rounding.")


def host(array):
    return array.get() if hasattr(array, "get") else np.asarray(array)


def sample(array):
    """A thousand elements, in float64."""
    flat = array.reshape(-1)
    return host(flat[np.linspace(0, flat.size - 1, 1001).astype(int)]).astype(np.float64)


def of_elements(arrays, call, formula, bytes_an_element):
    """An operation on so many arrays: call(out, *arrays) -> result; formula(*arrays) -> result, size of its terms."""

    def make(peer):
        given, out = [peer.normal(peer.size) for _ in range(arrays)], peer.xp.empty(peer.size, np.float32)
        found = [out]

        def run():
            found[0] = call(out, *given)

        def judge():
            right, terms = formula(*map(sample, given))
            peer.require(sample(found[0]), right, 16 * verify.U * terms + TINY)

        return run, judge, bytes_an_element * peer.size, 0

    return make


def copy(out, x):
    out[...] = x
    return out


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def dropout(peer):
    x, out = peer.normal(peer.size), peer.xp.empty(peer.size, np.float32)
    mask = peer.xp.asarray(np.random.default_rng(1).random(peer.size) >= RATE)

    def judge():
        peer.require(sample(out), np.where(sample(mask) > 0, sample(x) / (1 - RATE), 0), verify.U * abs(sample(x)) * 2)

    return lambda: ops.dropout(x, mask, rate=RATE, out=out), judge, 9 * peer.size, 0


def keep_flags(peer):
    found = [None]

    def run():
        found[0] = random.dropout_mask((peer.size,), RATE, (7, 3))

    def judge():
        first = random.dropout_mask((4,), RATE, (7, 3))
        share = found[0].mean()
        if not np.array_equal(found[0][:4], first) or abs(share - (1 - RATE)) > 5 * 0.5 / np.sqrt(peer.size):
            raise verify.Wrong(f"{peer.name}: kept {share}")

    return run, judge, peer.size, 0


def dropout_kernel(peer):
    """kernels/dropout.cu, which draws the mask too."""
    x, out, state = peer.normal(peer.size), peer.xp.empty(peer.size, np.float32), peer.xp.asarray([7, 3])

    def judge():
        flags = random.dropout_mask((peer.size,), RATE, (7, 3))
        peer.require(sample(out), np.where(sample(flags) > 0, sample(x) / (1 - RATE), 0), verify.U * abs(sample(x)) * 2)

    return lambda: cuda.dropout(x, out, state, RATE), judge, 8 * peer.size, 0


def adam(peer):
    return adam_by(peer, lambda *arrays: ops.adam_step(*arrays, step=3))


def adam_loop(peer):
    """elementwise.adam_step, compiled by Numba."""
    alpha = np.array([0.001 * np.sqrt(1 - 0.999**3) / (1 - 0.9**3)], np.float32)
    constants = np.array([1 - 0.9, 1 - 0.999, 1e-7], np.float32)
    loop = elementwise.compiled(elementwise.adam_step)
    return adam_by(peer, lambda *arrays: loop(*arrays, alpha, constants))


def adam_kernel(peer):
    """kernels/adam.cu, without penalties."""
    alpha = peer.xp.full(1, 0.001 * np.sqrt(1 - 0.999**3) / (1 - 0.9**3), np.float32)
    rest = (alpha, 1 - 0.9, 1 - 0.999, 1e-7, None, None, None, 0)
    grid = cuda.blocks_for(peer.size)
    return adam_by(peer, lambda *arrays: cuda.launch("adam_step_float32", grid, 256, *arrays, peer.size, *rest))


def adam_by(peer, step):
    """The third step of Adam, by step(param, grad, m, v)."""
    param, grad, m = (peer.normal(peer.size) for _ in range(3))
    v = abs(peer.normal(peer.size))
    start = [sample(a) for a in (param, grad, m, v)]

    def run():
        step(param, grad, m, v)

    def judge():
        if peer.done != 1:
            raise verify.Wrong(f"{peer.name}: is judged after one step, not {peer.done}.")
        w, g, a, b = start
        a_new, b_new = a + 0.1 * (g - a), b + 0.001 * (g * g - b)
        alpha = 0.001 * np.sqrt(1 - 0.999**3) / (1 - 0.9**3)
        update = alpha * a_new / (np.sqrt(b_new) + 1e-7)
        # α: βᵗ rounded, over 1 − βᵗ; m: its terms may cancel; v: positive
        scale = alpha * (abs(a) + abs(g)) / np.sqrt(b_new)
        peer.require(sample(param), w - update, 16 * verify.U * (abs(w) + scale) + 4 * verify.U / 0.002 * abs(update))

    return run, judge, 28 * peer.size, 0


def penalty(peer):
    x, found = peer.normal(peer.size), [None]

    def run():
        found[0] = ops.l2_penalty(x, l2=0.1)

    def judge():
        right = 0.1 * np.square(host(x).astype(np.float64)).sum()
        peer.require(found[0], right, (verify.sum_error(peer.size) + 4 * verify.U) * right)

    return run, judge, 4 * peer.size, 0


def product(forward):
    """A dense layer's product: forward, or its kernel's gradient, or its inputs'."""

    def make(peer):
        x, kernel, d = peer.normal(ROWS, INPUTS), peer.normal(INPUTS, UNITS), peer.normal(ROWS, UNITS)
        left, right, call = {
            "outputs": (x, kernel, lambda out: ops.dense(x, kernel, out=out)),
            "kernel": (x.T, d, lambda out: ops.dense_gradients(d, x, out_kernel=out)),
            "inputs": (d, kernel.T, lambda out: ops.dense_backward(d, kernel, out=out)),
        }[forward]
        out = peer.xp.empty((len(left), right.shape[1]), np.float32)

        def judge():
            a, b = host(left[:64]), host(right)
            peer.require(out[:64], a.astype(np.float64) @ b, verify.product_error(a, 0.0, b, 0.0, 0.0))

        return lambda: call(out), judge, 0, 2 * ROWS * INPUTS * UNITS

    return make


def product_kernel(peer):
    """kernels/matmul.cu's matmul_blocked on a dense layer's product."""
    a, b, out = peer.normal(ROWS, INPUTS), peer.normal(INPUTS, UNITS), peer.xp.empty((ROWS, UNITS), np.float32)
    shape = (ROWS, UNITS, INPUTS, INPUTS, 1, UNITS, 1)

    def judge():
        left, right = host(a[:64]), host(b)
        peer.require(out[:64], left.astype(np.float64) @ right, verify.product_error(left, 0.0, right, 0.0, 0.0))

    def run():
        cuda.launch("matmul_blocked_float32", (UNITS // 64, ROWS // 64), (16, 16), a, b, out, *shape)

    return run, judge, 0, 2 * ROWS * INPUTS * UNITS


def square_product(peer):
    a, b, out = peer.normal(2048, 2048), peer.normal(2048, 2048), peer.xp.empty((2048, 2048), np.float32)

    def judge():
        left, right = host(a[:64]), host(b)
        peer.require(out[:64], left.astype(np.float64) @ right, verify.product_error(left, 0.0, right, 0.0, 0.0))

    return lambda: peer.xp.matmul(a, b, out), judge, 0, 2 * 2048**3


# What bounds an operation of memory is a copy, what bounds a product is the product of square matrices.
OPERATIONS = {
    COPY: of_elements(1, copy, lambda x: (x, abs(x)), 8),
    PRODUCT: square_product,
    "relu": of_elements(1, lambda out, x: ops.relu(x, out=out), lambda x: (np.maximum(x, 0), 0 * x), 8),
    "relu_backward": of_elements(
        2, lambda out, d, x: ops.relu_backward(d, x, out=out), lambda d, x: (np.where(x > 0, d, 0), 0 * d), 12
    ),
    "sigmoid": of_elements(1, lambda out, x: ops.sigmoid(x, out=out), lambda x: (sigmoid(x), sigmoid(x)), 8),
    "tanh": of_elements(1, lambda out, x: ops.tanh(x, out=out), lambda x: (np.tanh(x), abs(np.tanh(x))), 8),
    "binary_crossentropy_from_logits": of_elements(
        2,
        lambda out, y, z: ops.binary_crossentropy_from_logits(y, z),
        lambda y, z: (
            np.maximum(z, 0) - z * y + np.log1p(np.exp(-abs(z))),
            abs(z) + abs(z * y) + np.log1p(np.exp(-abs(z))),
        ),
        12,
    ),
    "dropout, mask given": dropout,
    "dropout_mask": keep_flags,
    "adam_step": adam,
    ADAM_BY_NUMBA: adam_loop,
    "l2_penalty": penalty,
    "dense": product("outputs"),
    "dense_gradients": product("kernel"),
    "dense_backward": product("inputs"),
}

# On a GPU alone: minidl.cuda's kernels. dropout_mask and Numba's loop are the processor's, and have kernels there.
KERNELS = {"dropout.cu, mask drawn": dropout_kernel, "adam.cu": adam_kernel, "matmul.cu, blocked": product_kernel}
ON_GPU = [name for name in OPERATIONS if name not in ("dropout_mask", ADAM_BY_NUMBA)] + list(KERNELS)
