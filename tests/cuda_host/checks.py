"""Each kernel against ops.py: run by test_kernels.py as it is, and again in a process of its own under a sanitizer.

    python checks.py address|thread              every check
    python checks.py address|thread KERNEL …     kernels of faults.cu

u is the unit roundoff and γₙ = n·u / (1 − n·u), as in oracle/bounds.py. Where kernel and ops.py round differently, each
lies within its bound of the true value, so that they differ by at most twice the bound.
"""

import functools
import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":  # in a process of its own there is no pytest to set the path
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from cuda_host import host
from helpers import assert_close, assert_same

from minidl import config, ops, random

SUM_ITEMS = 4  # common.cuh
ACTIVATIONS = ["linear", "relu", "sigmoid", "tanh"]
DTYPES = ["float32", "float64"]

# Errors of elementary functions in units of u, the larger of glibc's and NumPy's: see oracle/bounds.py for NumPy's
# measured ulps (an ulp is at most 2u); glibc's documented ones are smaller. NumPy's log: at most 4 ulp (its own tests).
EXP, LOG, LOG1P, TANH = 6, 8, 10, 14


def unit(dtype):
    return float(np.finfo(dtype).eps) / 2


def gamma(n, dtype):
    return n * unit(dtype) / (1 - n * unit(dtype))


class Kernels:
    """The kernels of one file, in one dtype, built for one sanitizer."""

    def __init__(self, stem, dtype, sanitize):
        self.library, self.dtype = host.build(host.KERNELS / f"{stem}.cu", sanitize), dtype

    def __call__(self, kernel, *arguments, **launch):
        self.library.launch(f"{kernel}_{self.dtype}", arguments, **launch)


# Launches that a result must not depend on: of several blocks, of one, of fewer threads than elements and of more.
LAUNCHES = [
    {"grid": 2, "block": 64, "order": "forward"},
    {"grid": 1, "block": 96, "order": "reverse"},
    {"grid": 3, "block": 32, "order": "shuffled", "seed": 1},
]
# Launches of a sum, whose order depends on the size of the block.
SUM_LAUNCHES = [{"grid": g, "block": 64, "order": o} for g, o in ((1, "forward"), (3, "reverse"), (2, "shuffled"))]


def few(items, sanitize):
    """All items, or the first and the last under the thread sanitizer, where each CUDA thread costs a millisecond."""
    return [items[0], items[-1]] if sanitize == "thread" else items


def tiles(size, block):
    return -(-size // (SUM_ITEMS * block))


def normal(rng, shape, dtype, scale=1.0):
    return (scale * rng.normal(size=shape)).astype(dtype)


# ---------------------------------------------------------------------------------------------------- batches


def check_batch(dtype, sanitize=None):
    """Rows are copied, so equal; the loss's sum is three roundings in the order of metrics.Mean.add."""
    run, rng = Kernels("batch", dtype, sanitize), np.random.default_rng(6)
    for samples, width, count, position in few([(20, 3, 5, 4), (1, 1, 1, 0), (300, 7, 40, 260)], sanitize):
        source, order = normal(rng, (samples, width), dtype), rng.permutation(samples).astype(np.int64)
        counters = np.array([position, 2, -1, -9, 2**40], np.int64)
        for launch in few(LAUNCHES, sanitize):
            for numbers in (order, None):
                rows, given = host.empty((count, width), dtype), None if numbers is None else host.array(numbers)
                run("take_rows", host.array(source), given, host.array(counters), rows, count, width, **launch)
                found = (np.arange(samples) if numbers is None else numbers)[position : position + count]
                assert_same(rows, source[found])
            target = host.array(source)
            run("put_rows", rows, host.array(counters), target, count, width, **launch)
            expected = source.copy()
            expected[position : position + count] = rows
            assert_same(target, expected)

            # a batch whose loss is not finite, after one that was, or of none at all
            advance = np.array([count, 1, 0, 0, 1], np.int64)
            scalar = np.dtype(dtype).type
            loss, penalty = (scalar(value) for value in (rng.uniform(), rng.uniform()))
            for value, added in ((loss, penalty), (loss, None), (scalar("nan"), penalty), (loss, scalar("inf"))):
                total, rows_seen, after = host.array([scalar(3)]), host.array([scalar(5)]), host.array(counters)
                losses = [None if one is None else host.array([one]) for one in (value, added)]
                settings = (after, host.array(advance), 5)
                run("finish_batch", *losses, total, rows_seen, count, *settings, **launch)
                whole = value if added is None else value + added
                if np.isfinite(whole):
                    assert_same(total, np.array([scalar(3) + whole * scalar(count)]))
                assert_same(rows_seen, np.array([scalar(5 + count)]))
                seen = counters + advance
                seen[2] = -1 if np.isfinite(whole) else 2
                assert_same(after, seen)
            after[2] = 1  # the first of them stays
            run("finish_batch", host.array([scalar("nan")]), None, total, rows_seen, count, *settings, **launch)
            assert after[2] == 1
            before = after.copy()
            run("finish_batch", None, None, None, None, count, *settings, **launch)
            assert_same(after, before + advance)


# ---------------------------------------------------------------------------------------------------- dropout


SHAPES = [(5, 3), (1,), (3,), (32, 4), (257, 31)]
RATES = [0.0, 0.1, 0.25, 0.5, 0.9, 1 - 2.0**-30, 2.0**-60, 1.0, 1 / 3]


def check_dropout(dtype, sanitize=None):
    """Bit-equal: every keep flag, and a product that is rounded once."""
    run, rng = Kernels("dropout", dtype, sanitize), np.random.default_rng(0)
    for xla, stream in enumerate(("tensorflow", "tensorflow-xla")):
        for shape in few(SHAPES, sanitize):
            for number, rate in few(list(enumerate(RATES)), sanitize):
                pair = [(1, 0), (-5, 2**40), (2**31 - 2, 3), (-(2**63), 2**63 - 1)][number % 4]
                inputs = normal(rng, shape, dtype)
                with config.using_random_stream(stream):
                    mask = random.dropout_mask(shape, rate, pair, dtype)
                expected = ops.dropout(inputs, mask, rate=rate)
                given, state = host.array(inputs), host.array(pair, np.int64)
                launch = LAUNCHES[number % len(LAUNCHES)]
                for kernel in ("dropout", "dropout_backward"):
                    outputs = host.empty(shape, dtype)
                    run(kernel, given, outputs, inputs.size, state, rate, xla, **launch)
                    assert_same(outputs, expected)
                run("dropout", given, given, inputs.size, state, rate, xla, **launch)  # in place
                assert_same(given, expected)


def check_dropout_at_the_threshold(dtype, sanitize=None):
    """u = fraction · 2^−bits of one element: kept at a rate of exactly u, dropped at a rate half a step above."""
    run, pair, count = Kernels("dropout", dtype, sanitize), (3, 4), 64
    words = random.tensorflow_words(pair, count * (2 if dtype == "float64" else 1))[0]
    for xla, stream in enumerate(("tensorflow", "tensorflow-xla")):
        fractions, bits = random.tensorflow_fractions(words, dtype, xla=bool(xla))
        element = int(np.argmin(fractions))  # below 2^(bits − 1), so that half a step above is a number of dtype
        for above, kept in ((0.0, True), (0.5, False)):
            rate = (float(fractions[element]) + above) * 2.0**-bits
            outputs, given = host.empty(count, dtype), host.array(np.ones(count, dtype))
            run("dropout", given, outputs, count, host.array(pair, np.int64), rate, xla, grid=1, block=32)
            with config.using_random_stream(stream):
                expected = random.dropout_mask((count,), rate, pair, dtype)
            assert expected[element] == kept
            assert_same(outputs != 0, expected)


def check_dropout_million(dtype, sanitize=None):
    """The flags of 10⁶ elements, whatever the grid."""
    run, count = Kernels("dropout", dtype, sanitize), 10**6
    inputs, state = host.array(np.ones(count, dtype)), host.array([7, 11], np.int64)
    expected = random.dropout_mask((count,), 0.3, (7, 11), dtype)
    for launch in LAUNCHES[1:]:
        outputs = host.empty(count, dtype)
        run("dropout", inputs, outputs, count, state, 0.3, 0, **launch)
        assert_same(outputs != 0, expected)


# ------------------------------------------------------------------------------------------------------- Adam


def segments_of(dtype):
    """Three segments with L1, nothing, and L1 and L2; their factors as regularizers.py rounds them."""
    stops, l1, l2 = [100, 117, 301], [0.01, 0.0, 0.003], [0.0, 0.0, 0.02]
    return stops, np.float32(l1).astype(dtype), np.float32(l2).astype(dtype)


def penalty_gradients(weights, dtype):
    stops, l1, l2 = segments_of(dtype)
    gradient, start = np.zeros_like(weights), 0
    for stop, a, b in zip(stops, l1, l2, strict=True):
        part = weights[start:stop]
        gradient[start:stop] = ops.l1_gradient(part, l1=float(a)) + ops.l2_gradient(part, l2=float(b))
        start = stop
    return gradient


def check_adam(dtype, sanitize=None):
    """Bit-equal over 20 steps, α included, with and without the gradients of penalties."""
    run, rng, size = Kernels("adam", dtype, sanitize), np.random.default_rng(0), 301
    settings = {"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
    stops, l1, l2 = segments_of(dtype)
    segments = (host.array(stops, np.int64), host.array(l1), host.array(l2), 3)
    for penalties in (False, True):
        param, grad = normal(rng, size, dtype), normal(rng, size, dtype)
        param[::50] = 0  # where the sign is 0
        m, v = np.zeros(size, dtype), np.zeros(size, dtype)
        device = [host.array(a) for a in (param, grad, m, v)]
        iterations, alpha = host.array([0], np.int64), host.empty(1, dtype)
        steps = 3 if sanitize == "thread" else 20
        for step in range(1, steps + 1):
            grad[:] = device[1][:] = normal(rng, size, dtype, scale=10.0 ** (step % 7 - 5))
            total = grad + penalty_gradients(param, dtype) if penalties else grad
            ops.adam_step(param, total, m, v, step=step, **settings)
            run("adam_alpha", iterations, alpha, 0.01, 0.9, 0.999, grid=2, block=32)
            expected = ops.adam_alpha(np.dtype(dtype).type, step=step, learning_rate=0.01, beta_1=0.9, beta_2=0.999)
            assert_same(alpha[0], expected)
            rest = (alpha, 1 - 0.9, 1 - 0.999, 1e-7, *(segments if penalties else (None, None, None, 0)))
            run("adam_step", *device, size, *rest, **LAUNCHES[step % 3])
            for got, wanted in zip(device, (param, grad, m, v), strict=True):
                assert_same(got, wanted)
        assert iterations[0] == steps


# -------------------------------------------------------------------------------------------------- penalties


def check_penalty(dtype, sanitize=None):
    """Gradient bit-equal; value: a sum of n terms in another order, two products a term, γₙ₊₂ of a sum of n ≥ 0."""
    run, rng, size = Kernels("penalty", dtype, sanitize), np.random.default_rng(1), 301
    stops, l1, l2 = segments_of(dtype)
    segments = (host.array(stops, np.int64), host.array(l1), host.array(l2), 3)
    weights, grads = normal(rng, size, dtype), normal(rng, size, dtype)
    weights[::37] = 0
    parts = np.split(weights, stops[:-1])
    expected = sum(
        ops.l1_penalty(part, l1=float(a)) + ops.l2_penalty(part, l2=float(b))
        for part, a, b in zip(parts, l1, l2, strict=True)
    )
    results = []
    for launch in few(SUM_LAUNCHES, sanitize):
        count = tiles(size, launch["block"])
        partials, total, device = host.empty(count, dtype), host.empty(1, dtype), host.array(grads)
        run("penalty", host.array(weights), device, partials, size, *segments, **launch)
        run("penalty_total", partials, total, count, grid=1, block=32, order=launch["order"])
        assert_same(device, grads + penalty_gradients(weights, dtype))
        assert_close(total[0], expected, atol=2 * gamma(size + 2, dtype) * float(expected), what="penalty")
        again = host.empty(count, dtype)
        run("penalty", host.array(weights), None, again, size, *segments, **launch)  # the value alone
        assert_same(again, partials)
        results.append(total[0])
    assert len(set(results)) == 1, f"the penalty depends on the grid or on the order of the threads: {results}"


# --------------------------------------------------------------------------------------- binary cross-entropy


def bce_data(dtype, shape):
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, shape).astype(dtype)
    y[0] = 0.25  # a smoothed label
    return y, rng.uniform(0.5, 2, len(y)).astype(dtype), rng


def check_bce_from_logits(dtype, sanitize=None):
    """t = e^−|z| is EXP·u off, so t/(1 + t), called tail, is EXP·u + γ₂; the rest is derived where it is used."""
    run, u = Kernels("bce", dtype, sanitize), unit(dtype)
    for shape in few([(37, 1), (1, 1), (100, 3), (300, 1)], sanitize):
        y, weights, rng = bce_data(dtype, shape)
        z = normal(rng, shape, dtype, scale=5)
        z.flat[: min(4, z.size)] = [0.0, 90.0, -90.0, 1e4][: min(4, z.size)]
        tail, z64 = ops.sigmoid(-np.abs(z.astype(np.float64))), z.astype(np.float64)
        for w in (None, weights):
            scale = (np.ones(len(y)) if w is None else w.astype(np.float64))[:, None] / z.size
            gradient = ops.binary_crossentropy_from_logits_backward(y, z)
            gradient *= 1.0 / z.size
            if w is not None:
                gradient *= w[:, None]
            losses = ops.binary_crossentropy_from_logits(y, z)
            loss = ops.weighted_mean_over_batch(losses.mean(axis=-1), w)
            # two terms [z ≥ 0](1 − y) or y, and tail: two sums, and the products with 1/size (rounded) and w
            rest = np.where(z >= 0, 1 - y, y)
            budget = ((EXP * u + gamma(2, dtype)) * tail + gamma(5, dtype) * (rest + tail)) * scale
            # ℓ: one product, two sums, log1p of t; then n terms in any order, the product with w, the division
            log1p = np.log1p(np.exp(-np.abs(z64)))
            size = (np.maximum(z64, 0) + np.abs(z64) * y + log1p) * scale
            of_loss = gamma(z.size + 6, dtype) * size.sum() + (EXP + LOG1P) * u * (log1p * scale).sum()
            results = []
            for launch in few(SUM_LAUNCHES, sanitize):
                count = tiles(z.size, launch["block"])
                d, partials, total = host.empty(shape, dtype), host.empty(count, dtype), host.empty(1, dtype)
                given = [host.array(y), host.array(z), None if w is None else host.array(w)]
                run("bce_from_logits", *given, d, partials, z.size, shape[1], **launch)
                run("bce_mean", partials, total, count, z.size, grid=1, block=64)
                # below the smallest normal number rounding is absolute: at most that number
                tiny = 2 * float(np.finfo(dtype).tiny)
                assert_close(d, gradient, atol=2 * budget + tiny, what="gradient from logits")
                assert_close(total[0], loss, atol=2 * of_loss + tiny, what="loss from logits")
                results.append((total[0], d.tobytes()))
            assert len(set(results)) == 1, "loss or gradient depends on the grid or on the order of the threads"


def check_bce_from_probabilities(dtype, sanitize=None):
    """The gradient is bit-equal: no elementary function is in it."""
    run, u, epsilon = Kernels("bce", dtype, sanitize), unit(dtype), 1e-7
    for shape in few([(37, 1), (1, 1), (100, 3)], sanitize):
        y, weights, rng = bce_data(dtype, shape)
        p = rng.uniform(0, 1, shape).astype(dtype)
        p.flat[: min(3, p.size)] = [0.0, 1.0, 1e-9][: min(3, p.size)]  # clipped
        for w in (None, weights):
            gradient = ops.binary_crossentropy_backward(y, p, epsilon=epsilon)
            gradient *= 1.0 / p.size
            if w is not None:
                gradient *= w[:, None]
            losses = ops.binary_crossentropy(y, p, epsilon=epsilon)
            loss = ops.weighted_mean_over_batch(losses.mean(axis=-1), w)
            # a logarithm, two products (1 − y is exact or rounded once), their sum; n terms, w, the division.
            # Both take the logarithm of the same 1 − p.
            size = float((losses.astype(np.float64) * (np.ones(len(y)) if w is None else w)[:, None]).sum() / p.size)
            of_loss = (gamma(p.size + 6, dtype) + LOG * u) * size
            for launch in few(SUM_LAUNCHES, sanitize):
                count = tiles(p.size, launch["block"])
                d, partials, total = host.empty(shape, dtype), host.empty(count, dtype), host.empty(1, dtype)
                given = [host.array(y), host.array(p), None if w is None else host.array(w)]
                run("bce_from_probabilities", *given, d, partials, p.size, shape[1], epsilon, **launch)
                run("bce_mean", partials, total, count, p.size, grid=1, block=64)
                assert_same(d, gradient)
                assert_close(total[0], loss, atol=2 * of_loss, what="loss from probabilities")


# ------------------------------------------------------------------------------------------------------ dense


def check_dense(dtype, sanitize=None):
    """linear, relu and every derivative bit-equal; sigmoid: e^−|z|, sum, quotient; tanh: its own error."""
    run, rng, u = Kernels("dense", dtype, sanitize), np.random.default_rng(3), unit(dtype)
    relative = {"linear": 0, "relu": 0, "sigmoid": EXP * u + gamma(2, dtype), "tanh": TANH * u}
    for rows, units in few([(7, 33), (1, 1), (32, 4), (50, 70)], sanitize):
        products, bias = normal(rng, (rows, units), dtype, 2), normal(rng, units, dtype)
        for number, name in few(list(enumerate(ACTIVATIONS)), sanitize):
            for b in (None, bias):
                z = products if b is None else products + b
                expected = getattr(ops, name)(z)
                given = (host.array(products), None if b is None else host.array(b))
                pre, outputs = host.empty(z.shape, dtype), host.empty(z.shape, dtype)
                run("dense_forward", *given, pre, outputs, z.size, units, number, **LAUNCHES[number % 3])
                assert_same(pre, z)
                assert_close(outputs, expected, atol=2 * relative[name] * np.abs(expected), what=name)
                in_place = given[0]
                run("dense_forward", *given, None, in_place, z.size, units, number, **LAUNCHES[number % 3])
                assert_same(in_place, outputs)

            d_outputs = normal(rng, expected.shape, dtype)
            d_z = getattr(ops, f"{name}_backward")(d_outputs, expected)
            # the bias's gradient: B terms in another order
            budget = 2 * gamma(rows, dtype) * np.abs(d_z.astype(np.float64)).sum(axis=0)
            _, d_bias = ops.dense_gradients(d_z, products)
            results = []
            for grid, order in few([(1, "forward"), (3, "reverse"), (2, "shuffled")], sanitize):
                got_z, got_bias = host.empty(d_z.shape, dtype), host.empty(units, dtype)
                given = (host.array(d_outputs), host.array(expected))
                sizes = (rows, units, number)
                run("dense_backward", *given, got_z, got_bias, *sizes, grid=grid, block=(32, 4), order=order)
                assert_close(got_z, d_z, atol=0, what=f"gradient of {name}")
                assert_close(got_bias, d_bias, atol=budget, what="gradient of the bias")
                run("dense_backward", *given, given[0], None, *sizes, grid=grid, block=(32, 2), order=order)
                assert_same(given[0], got_z)  # in place, without a bias
                results.append(got_bias.tobytes())
            assert len(set(results)) == 1, "the bias's gradient depends on the grid or on the order of the threads"


def check_dense_not_a_number(dtype, sanitize=None):
    """A NaN stays one and an infinity is as in ops.py, forward and backward; 0 has no slope for ReLU."""
    run = Kernels("dense", dtype, sanitize)
    z = np.array([np.nan, np.inf, -np.inf, 0.0, 1.0], dtype)
    for number, name in enumerate(ACTIVATIONS):
        outputs, d_z = host.empty(5, dtype), host.empty(5, dtype)
        run("dense_forward", host.array(z), None, None, outputs, 5, 5, number, grid=1, block=32)
        expected = getattr(ops, name)(z)
        assert np.array_equal(np.isnan(outputs), np.isnan(z)) and np.isnan(expected[0])
        assert_close(outputs[3:], expected[3:], atol=0, rtol=2 * TANH * unit(dtype), what=name)
        assert_same(outputs[1:3], expected[1:3])  # limits, which are exact
        ones = np.ones(5, dtype)
        run("dense_backward", host.array(ones), host.array(expected), d_z, None, 1, 5, number, grid=1, block=(32, 1))
        with np.errstate(invalid="ignore"):
            backward = getattr(ops, f"{name}_backward")(ones, expected)
        assert np.array_equal(d_z, backward, equal_nan=True), f"gradient of {name}: {d_z}, expected {backward}"


# -------------------------------------------------------------------------------------------------- products


def product_in_order(a, b):
    """a @ b, products added over k = 0, 1, … one by one: what each of the three kernels does."""
    c = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    for k in range(a.shape[1]):
        c += a[:, k, None] * b[k]
    return c


def check_matmul(dtype, sanitize=None):
    """Bit-equal to the sum in order of k, for all three; within 2γₖ|a||b| of NumPy's, whose order is BLAS's own."""
    run, rng = Kernels("matmul", dtype, sanitize), np.random.default_rng(4)
    launches = {
        "matmul_naive": [{"grid": 2, "block": 64}, {"grid": 1, "block": 96, "order": "reverse"}],
        "matmul_tiled": [{"grid": 1, "block": (16, 16)}, {"grid": (2, 1), "block": (16, 16), "order": "reverse"}],
        "matmul_blocked": [
            {"grid": (1, 1), "block": (16, 16)},
            {"grid": (1, 2), "block": (16, 16), "order": "shuffled"},
        ],
    }
    for m, n, k in few([(17, 33, 15), (1, 1, 1), (4, 4, 32), (16, 64, 0), (70, 65, 37)], sanitize)[
        -1 if sanitize == "thread" else 0 :
    ]:
        a, b = normal(rng, (m, k), dtype), normal(rng, (k, n), dtype)
        expected, magnitude = product_in_order(a, b), np.abs(a).astype(np.float64) @ np.abs(b)
        assert_close(ops.dense(a, b), expected, atol=2 * gamma(k, dtype) * magnitude, what="a @ b")
        for transposed in (False, True):
            # the same products, with each operand lying transposed in memory
            given = [host.array(x.T if transposed else x) for x in (a, b)]
            strides = (1, m, 1, k) if transposed else (k, 1, n, 1)
            for kernel, of_kernel in launches.items():
                for launch in of_kernel[-1:] if sanitize == "thread" else of_kernel:
                    c = host.empty((m, n), dtype)
                    run(kernel, *given, c, m, n, k, *strides, **launch)
                    assert_same(c, expected)


# --------------------------------------------------------------------------------------------------- metrics


def check_metrics(dtype, sanitize=None):
    """Equal: weights are multiples of 1/8, so that their sums are exact in any order; U is a power of two."""
    run, rng = Kernels("metrics", dtype, sanitize), np.random.default_rng(5)
    for rows, units in few([(100, 1), (1, 1), (64, 4), (301, 2)], sanitize):
        y = rng.integers(0, 2, (rows, units)).astype(dtype)
        p = rng.uniform(0, 1, (rows, units)).astype(dtype)
        p[0], y[rows // 2] = 0.5, 0.5  # exactly the threshold; a label that never matches
        weights = (rng.integers(1, 17, rows) / 8).astype(dtype)
        for w in (None, weights):
            factor = np.ones(rows, dtype) if w is None else w
            total = (ops.binary_accuracy(y, p).mean(axis=-1) * factor).sum(dtype=dtype) + np.dtype(dtype).type(3)
            for launch in few(SUM_LAUNCHES, sanitize):
                count = tiles(p.size, launch["block"])
                partials, sums = host.empty((2, count), dtype), [host.array([s], dtype) for s in (3, 5)]
                given = (host.array(y), host.array(p), None if w is None else host.array(w))
                run("binary_accuracy", *given, partials, p.size, units, count, 0.5, **launch)
                run("binary_accuracy_add", partials, *sums, units, count, grid=1, block=32, order=launch["order"])
                assert_same(sums[0][0], total)
                assert_same(sums[1][0], factor.sum(dtype=dtype) + np.dtype(dtype).type(5))


CHECKS = {name.removeprefix("check_"): f for name, f in list(globals().items()) if name.startswith("check_")}


# ---------------------------------------------------------------------------------------------- planted faults


@functools.cache
def faults(sanitize):
    return host.build(host.HERE / "faults.cu", sanitize)


# What a kernel of faults.cu is launched with where it is not grid=1, block=32, n=20 and an output for each thread.
FAULT_LAUNCHES = {
    "missing_second_barrier": {"n": 32},
    "off_by_one": {"outputs": 20},
    "shared_off_by_one": {"block": 64},
    "dynamic_off_by_one": {"outputs": 20, "shared": 80},
    "race_between_blocks": {"grid": 2},
    "half_mask": {"n": 32},
    "lane_at_barrier": {"n": 32},
}


def run_fault(kernel, sanitize=None, order="forward"):
    """Launch a kernel of faults.cu on the numbers 1 … n; returns its outputs."""
    settings = {"grid": 1, "block": 32, "n": 20, "shared": 0} | FAULT_LAUNCHES.get(kernel.removesuffix("_control"), {})
    grid, block, n = settings["grid"], settings["block"], settings["n"]
    numbers = host.array(np.arange(1, n + 1, dtype=np.float32))
    outputs = host.empty(settings.get("outputs", grid * block), "float32")
    launch = {"grid": grid, "block": block, "shared": settings["shared"], "order": order}
    faults(sanitize).launch(kernel, (numbers, outputs, n), **launch)
    return outputs


def main(sanitize, *kernels):
    for kernel in kernels:
        run_fault(kernel, sanitize)
    if not kernels:
        for name, check in CHECKS.items():
            for dtype in DTYPES[: 1 if sanitize == "thread" else 2]:
                print(name, dtype, flush=True)
                check(dtype, sanitize)


if __name__ == "__main__":
    main(*sys.argv[1:])
