"""Each kernel against ops.py: run by test_kernels.py as it is, and again in a process of its own under a sanitizer.

    python checks.py address|thread              every check
    python checks.py address|thread KERNEL …     kernels of faults.cu
    python checks.py address|thread CHECK DIR    one check, of the kernels in another directory

u is the unit roundoff and γₙ = n·u / (1 − n·u), as in oracle/bounds.py. Where kernel and ops.py round differently, each
lies within its bound of the true value, so that they differ by at most twice the bound.
"""

import contextlib
import functools
import math
import sys
from pathlib import Path
from unittest import mock

import numpy as np

if __name__ == "__main__":  # in a process of its own there is no pytest to set the path
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from cuda_host import host
from helpers import assert_close, assert_same

from minidl import activations, config, fused, keras, many, ops, random
from minidl.oracle import notebook

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

    directory = host.KERNELS

    def __init__(self, stem, dtype, sanitize):
        self.library, self.dtype = host.build(self.directory / f"{stem}.cu", sanitize), dtype

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
    """Bit-equal over 20 steps, each with a learning rate of its own, α included, with and without penalties."""
    run, rng, size = Kernels("adam", dtype, sanitize), np.random.default_rng(0), 301
    settings = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
    rates = np.array([0.01 / step for step in range(1, 21)], dtype)
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
            rate = float(rates[step - 1])
            ops.adam_step(param, total, m, v, step=step, learning_rate=rate, **settings)
            which = host.array(rates), host.array([step - 1], np.int64)
            run("adam_alpha", iterations, alpha, *which, 0.9, 0.999, grid=2, block=32)
            expected = ops.adam_alpha(np.dtype(dtype).type, step=step, learning_rate=rate, beta_1=0.9, beta_2=0.999)
            assert_same(alpha[0], expected)
            rest = (alpha, 1 - 0.9, 1 - 0.999, 1e-7, *(segments if penalties else (None, None, None, 0)))
            run("adam_step", *device, size, *rest, **LAUNCHES[step % 3])
            for got, wanted in zip(device, (param, grad, m, v), strict=True):
                assert_same(got, wanted)
        assert iterations[0] == steps


def check_amsgrad(dtype, sanitize=None):
    """Bit-equal over 20 steps, by turns with decay before and with penalties."""
    run, rng, size = Kernels("adam", dtype, sanitize), np.random.default_rng(6), 301
    settings = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
    rates = np.array([0.01 / step for step in range(1, 21)], dtype)
    stops, l1, l2 = segments_of(dtype)
    segments = (host.array(l1), host.array(l2), 3)
    decays = np.float32([10.1, 0.0, 4.3]).astype(dtype)
    param, grad = normal(rng, size, dtype), normal(rng, size, dtype)
    m, v, v_hat = (np.zeros(size, dtype) for _ in range(3))
    device = [host.array(a) for a in (param, grad, m, v, v_hat)]
    iterations, alpha, ends = host.array([0], np.int64), host.empty(1, dtype), host.array(stops, np.int64)
    for step in range(1, 4 if sanitize == "thread" else 21):
        grad[:] = device[1][:] = normal(rng, size, dtype, scale=10.0 ** (-step % 7 - 5))  # v̂ stays above v
        rate, which = float(rates[step - 1]), (host.array(rates), host.array([step - 1], np.int64))
        penalties = step % 2 == 0
        if not penalties:
            for part, decay in zip(np.split(param, stops[:-1]), (10.1, None, 4.3), strict=True):
                if decay is not None:
                    ops.weight_decay_step(part, weight_decay=decay, learning_rate=rate)
            run("weight_decay", device[0], size, *which, ends, host.array(decays), 3, **LAUNCHES[(step + 1) % 3])
            assert_same(device[0], param)
        total = grad + penalty_gradients(param, dtype) if penalties else grad
        ops.amsgrad_step(param, total, m, v, v_hat, step=step, learning_rate=rate, **settings)
        run("adam_alpha", iterations, alpha, *which, 0.9, 0.999, grid=1, block=32)
        rest = (alpha, 1 - 0.9, 1 - 0.999, 1e-7, *((ends, *segments) if penalties else (None, None, None, 0)))
        run("amsgrad_step", *device, size, *rest, **LAUNCHES[step % 3])
        for got, wanted in zip(device, (param, grad, m, v, v_hat), strict=True):
            assert_same(got, wanted)
    assert sanitize == "thread" or (v_hat > v).all()  # after so many steps; equal after the first


# ------------------------------------------------------------------------------------------------------- clip


def check_clip(dtype, sanitize=None):
    """Norms: Σ g², n squares in any order, and a root: γₙ₊₁ / 2 + u. By the kernel's own norm all else is bit-equal."""
    run, rng, size = Kernels("clip", dtype, sanitize), np.random.default_rng(7), 1001
    stops = [3, 900, size]
    for scale in few([1.0, 1e-4, 100.0], sanitize):
        grads = normal(rng, size, dtype, scale)
        for ends in (stops, [size]):
            parts = np.split(grads, ends[:-1])
            results = []
            for launch in few(SUM_LAUNCHES, sanitize):
                count = tiles(max(map(len, parts)), launch["block"])
                partials, norms = host.empty((len(ends), count), dtype), host.empty(len(ends), dtype)
                device, given = host.array(grads), host.array(ends, np.int64)
                run("sum_of_squares", device, partials, given, len(ends), count, **launch)
                run("norms", partials, norms, len(ends), count, grid=2, block=32, order=launch["order"])
                for part, norm in zip(parts, norms, strict=True):
                    truth = np.linalg.norm(part.astype(np.float64))
                    assert_close(np.float64(norm), truth, atol=(gamma(size + 1, dtype) + 2 * unit(dtype)) * truth)
                results.append(norms.tobytes())
                if len(ends) == 1:
                    run("clip_by_global_norm", device, size, norms, 0.7, **launch)
                    clipped = [ops.clip_by_global_norm(grads, global_clipnorm=0.7)]
                else:
                    run("clip_by_norm", device, size, norms, 0.7, given, len(ends), **launch)
                    clipped = [ops.clip_by_norm(part, clipnorm=0.7) for part in parts]
                # either norm γₙ₊₁ / 2 + u off, and four roundings on each side
                relative = 2 * (gamma(size + 1, dtype) + gamma(6, dtype))
                assert_close(device, np.concatenate(clipped), atol=0, rtol=relative, what="clipped")
            assert len(set(results)) == 1, "a norm depends on the grid or on the order of the threads"
        device = host.array(grads)
        run("clip_by_value", device, size, 0.5, **LAUNCHES[0])
        assert_same(device, ops.clip_by_value(grads, clipvalue=0.5))
    for value in (0.0, np.inf, np.nan):  # of a norm: scaled by 1; all NaN, as ops.py has it
        device = host.array(grads)
        run("clip_by_global_norm", device, size, host.array([value], dtype), 0.7, **LAUNCHES[1])
        assert_same(device, grads) if value == 0 else np.testing.assert_array_equal(device, np.nan)
    device = host.array([np.nan, np.inf, -np.inf, -0.0], dtype)
    run("clip_by_value", device, 4, 0.5, **LAUNCHES[0])
    np.testing.assert_array_equal(device, np.array([np.nan, 0.5, -0.5, -0.0], dtype))


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


def mean_loss(run, mean, kernel, y, p, w, launch, *more, gradient=True):
    """(dL/dp, L) of a kernel whose sum over a batch is common.cuh's mean_loss. mean: the kernels of bce.cu."""
    count = tiles(p.size, launch["block"])
    d, partials, total = (host.empty(shape, p.dtype.name) for shape in (p.shape, count, 1))
    given = [host.array(y), host.array(p), None if w is None else host.array(w)]
    run(kernel, *given, d if gradient else None, partials, p.size, p.shape[1], *more, **launch)
    mean("bce_mean", partials, total, count, p.size, grid=1, block=64)
    return d, total


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
                d, total = mean_loss(run, run, "bce_from_logits", y, z, w, launch)
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
                d, total = mean_loss(run, run, "bce_from_probabilities", y, p, w, launch, epsilon)
                assert_same(d, gradient)
                assert_close(total[0], loss, atol=2 * of_loss, what="loss from probabilities")


def check_errors(dtype, sanitize=None):
    """The gradients are bit-equal: a difference, doubled, or a sign, and two products."""
    run, mean = Kernels("errors", dtype, sanitize), Kernels("bce", dtype, sanitize)
    for shape in few([(37, 1), (1, 1), (100, 3), (2100, 2)], sanitize):
        y, p, weights = errors_data(dtype, shape)
        for kernel in ("squared_error", "absolute_error"):
            of_losses, backward = getattr(ops, kernel), getattr(ops, f"{kernel}_backward")
            for w in (None, weights):
                gradient = backward(y, p) * np.dtype(dtype).type(1 / p.size)
                if w is not None:
                    gradient *= w[:, None]
                losses = of_losses(y, p)
                loss = ops.weighted_mean_over_batch(losses.mean(axis=-1), w)
                # a difference, its square, the product with w; n terms in any order; the division
                scale = (np.ones(len(y)) if w is None else w.astype(np.float64))[:, None] / p.size
                budget = gamma(p.size + 6, dtype) * float((losses.astype(np.float64) * scale).sum())
                results = []
                for launch in few(SUM_LAUNCHES, sanitize):
                    d, total = mean_loss(run, mean, kernel, y, p, w, launch)
                    assert_same(d, gradient)
                    assert_close(total[0], loss, atol=2 * budget, what=kernel)
                    results.append(total[0])
                    assert_same(mean_loss(run, mean, kernel, y, p, w, launch, gradient=False)[1], total)
                assert len(set(results)) == 1, "the loss depends on the grid or on the order of the threads"


def errors_data(dtype, shape):
    """y, p, of which some are equal, and weights of the rows."""
    rng = np.random.default_rng(4)
    y, p, weights = normal(rng, shape, dtype, 3), normal(rng, shape, dtype, 3), normal(rng, shape[0], dtype) ** 2
    p[0] = y[0]
    return y, p, weights


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


def check_softmax(dtype, sanitize=None):
    """e: EXP·u off, and what the difference to the maximum was rounded by, u of it; their sum γ_C more; a quotient."""
    run, rng, u = Kernels("dense", dtype, sanitize), np.random.default_rng(8), unit(dtype)
    for rows, units in few([(7, 33), (1, 1), (32, 4), (50, 3), (5, 100)], sanitize):
        products, bias = normal(rng, (rows, units), dtype, 5), normal(rng, units, dtype)
        products[0, -1] = 1e4  # no exponential overflows
        for b in (None, bias):
            z = products if b is None else products + b
            expected = ops.softmax(z)
            distance = np.max(z, axis=-1, keepdims=True).astype(np.float64) - z
            relative = 2 * (EXP * u + u * np.minimum(distance, 800)) + gamma(units + 2, dtype)
            results = []
            for launch in few(LAUNCHES, sanitize):
                given = (host.array(products), None if b is None else host.array(b))
                pre, outputs = host.empty(z.shape, dtype), host.empty(z.shape, dtype)
                run("dense_softmax", *given, pre, outputs, rows, units, **launch)
                assert_same(pre, z)
                tiny = float(np.finfo(dtype).tiny)
                assert_close(outputs, expected, atol=2 * relative * np.abs(expected) + tiny, what="softmax")
                run("dense_softmax", *given, None, given[0], rows, units, **launch)  # in place
                assert_same(given[0], outputs)
                results.append(outputs.tobytes())
            assert len(set(results)) == 1, "softmax depends on the launch"
        d = normal(rng, z.shape, dtype)
        d_z = ops.softmax_backward(d, expected)
        terms = np.abs(d.astype(np.float64) * expected)
        budget = gamma(units + 3, dtype) * expected * (np.abs(d) + terms.sum(axis=-1, keepdims=True))
        for launch in few(LAUNCHES, sanitize):
            got, given = host.empty(z.shape, dtype), host.array(d)
            run("softmax_backward", given, host.array(expected), got, rows, units, **launch)
            tiny = float(np.finfo(dtype).tiny)
            assert_close(got, d_z, atol=2 * budget + tiny, what="gradient of softmax")
            run("softmax_backward", given, host.array(expected), given, rows, units, **launch)  # in place
            assert_same(given, got)


# ---------------------------------------------------------------------------------- categorical cross-entropy


def check_categorical_from_logits(dtype, sanitize=None):
    """T = Σ of the other exponentials: ρ = EXP·u, u of each difference to the maximum, γ_C of it off; the rest is
    derived where it is used. y sums to 1."""
    run, mean = Kernels("categorical", dtype, sanitize), Kernels("bce", dtype, sanitize)
    u, tiny = unit(dtype), float(np.finfo(dtype).tiny)
    for samples, classes in few([(37, 3), (1, 2), (100, 40), (5, 1)], sanitize):
        rng = np.random.default_rng(9)
        y = np.eye(classes, dtype=dtype)[rng.integers(0, classes, samples)]
        y[0] = 1 / classes
        z = normal(rng, (samples, classes), dtype, 4)
        z[-1] = z[-1, 0]  # of equal logits the first is the maximum
        z64 = z.astype(np.float64)
        distance = z64.max(axis=-1, keepdims=True) - z64
        tail = np.exp(-distance).sum(axis=-1, keepdims=True) - 1
        rho = EXP * u + u * np.minimum(distance, 800).max(axis=-1, keepdims=True) + gamma(classes, dtype)
        for w in (None, rng.uniform(0.5, 2, samples).astype(dtype)):
            weight = np.ones(samples) if w is None else w.astype(np.float64)
            losses = ops.categorical_crossentropy_from_logits(y, z)
            loss = ops.weighted_mean_over_batch(losses, w)
            gradient = ops.categorical_crossentropy_from_logits_backward(y, z) * np.dtype(dtype).type(1 / samples)
            if w is not None:
                gradient *= w[:, None]
            # ln(1 + T): ρ T / (1 + T), LOG1P·u of it; times y, and a sum of C terms |ln(1 + T)| + |z − max z|
            log_sum = np.log1p(tail)
            of_loss = (y * (rho * tail / (1 + tail) + LOG1P * u * log_sum)).sum(axis=-1)
            of_loss += gamma(classes + 4, dtype) * (y * (log_sum + distance)).sum(axis=-1)
            of_mean = (of_loss * weight).mean() + gamma(samples + 2, dtype) * float((losses * weight).mean())
            # a ratio of T or an exponential to 1 + T, at most 1 and twice ρ off, a quotient; 1 − y, a difference, two
            # products
            ratio = np.exp(-distance) / (1 + tail)
            ratio = np.where(distance == 0, tail / (1 + tail), ratio)
            budget = (2 * rho * ratio + gamma(6, dtype) * (ratio + np.maximum(y, 1 - y))) * weight[:, None] / samples
            results = []
            for launch in few(LAUNCHES, sanitize):
                d, each, total = host.empty(z.shape, dtype), host.empty(samples, dtype), host.empty(1, dtype)
                given = [host.array(y), host.array(z), None if w is None else host.array(w)]
                run("categorical_from_logits", *given, d, each, samples, classes, **launch)
                mean("bce_mean", each, total, samples, samples, grid=1, block=64)
                assert_close(d, gradient, atol=2 * budget + tiny, what="gradient")
                assert_close(total[0], loss, atol=2 * of_mean + tiny, what="loss")
                again = host.empty(samples, dtype)
                run("categorical_from_logits", *given, None, again, samples, classes, **launch)  # the loss alone
                assert_same(again, each)
                results.append((d.tobytes(), each.tobytes()))
            assert len(set(results)) == 1, "loss or gradient depends on the launch"


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


def mean_sums(run, kernel, y, p, w, size, units, launch, *more):
    """Σ w · value / units and Σ w / units, from 3 and 5 on, of a kernel of metrics.cu; size: of its values."""
    count = tiles(size, launch["block"])
    partials, sums = host.empty((2, count), p.dtype.name), [host.array([s], p.dtype.name) for s in (3, 5)]
    given = (host.array(y), host.array(p), None if w is None else host.array(w))
    run(kernel, *given, partials, size, p.shape[1], count, *more, **launch)
    run("mean_add", partials, *sums, units, count, grid=1, block=32, order=launch["order"])
    return sums[0][0], sums[1][0]


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
                found, weight = mean_sums(run, "binary_accuracy", y, p, w, p.size, units, launch, 0.5)
                assert_same(found, total)
                assert_same(weight, factor.sum(dtype=dtype) + np.dtype(dtype).type(5))


def check_error_metrics(dtype, sanitize=None):
    """Σ w · error within the bound of a sum in any order; Σ w equal, its terms being multiples of 1/8."""
    run = Kernels("metrics", dtype, sanitize)
    for shape in few([(100, 1), (1, 1), (64, 4), (2100, 2)], sanitize):
        y, p, _ = errors_data(dtype, shape)
        weights = (np.random.default_rng(6).integers(1, 17, len(y)) / 8).astype(dtype)
        for kernel, errors in (("squared_error_sums", ops.squared_error), ("absolute_error_sums", ops.absolute_error)):
            for w in (None, weights):
                factor = np.ones(len(y), dtype) if w is None else w
                total = (errors(y, p).mean(axis=-1) * factor).sum(dtype=np.float64) + 3
                for launch in few(SUM_LAUNCHES, sanitize):
                    found, weight = mean_sums(run, kernel, y, p, w, p.size, shape[1], launch)
                    # a difference, its square, the product with w; n terms; the division; the sum with 3
                    assert_close(found, np.dtype(dtype).type(total), atol=2 * gamma(p.size + 8, dtype) * total)
                    assert_same(weight, factor.sum(dtype=dtype) + np.dtype(dtype).type(5))


def check_categorical_accuracy(dtype, sanitize=None):
    """Equal, as above; of class numbers by their one_hot, which is equal too. The first of equal outputs counts, and a
    NaN is the largest, as argmax has it."""
    run, rng = Kernels("metrics", dtype, sanitize), np.random.default_rng(9)
    for rows, classes in few([(100, 3), (1, 1), (64, 40), (301, 7)], sanitize):
        labels = rng.integers(0, classes, rows)
        y_true = host.empty((rows, classes), dtype)
        Kernels("categorical", dtype, sanitize)(
            "one_hot", host.array(labels, dtype), y_true, y_true.size, classes, **LAUNCHES[rows % 3]
        )
        p = (rng.integers(0, 4, (rows, classes)) / 4).astype(dtype)  # with equal ones
        assert_same(y_true, ops.one_hot(labels, p))
        p[rows // 2, classes // 2] = np.nan
        weights = (rng.integers(1, 17, rows) / 8).astype(dtype)
        for w in (None, weights):
            factor = np.ones(rows, dtype) if w is None else w
            matches = ops.sparse_categorical_accuracy(labels, p)
            assert_same(matches, ops.categorical_accuracy(y_true, p))
            for launch in few(SUM_LAUNCHES, sanitize):
                found, weight = mean_sums(run, "categorical_accuracy", y_true, p, w, rows, 1, launch)
                assert_same(found, (matches * factor).sum(dtype=dtype) + np.dtype(dtype).type(3))
                assert_same(weight, factor.sum(dtype=dtype) + np.dtype(dtype).type(5))


# ------------------------------------------------------------------------------------------- whole training


def exp_minus(x):
    """Twin of common.cuh's exp_minus: e^(−x), x ≥ 0, of additions and multiplications alone, in their order."""
    dtype = x.dtype.type
    high, low, limit, terms = {
        np.float32: (0.693359375, -2.12194440e-4, 104, 7),
        np.float64: (6.93147180369123816490e-01, 1.90821492927058770002e-10, 746, 13),
    }[dtype]
    inside = np.where(x <= limit, x, dtype(0))
    n = np.rint(inside * dtype(1.4426950408889634))
    r = (n * dtype(high) - inside) + n * dtype(low)
    total = np.full_like(x, dtype(1 / math.factorial(terms)))
    for k in range(terms - 1, -1, -1):
        total = total * r + dtype(1 / math.factorial(k))
    with np.errstate(under="ignore"):
        found = np.ldexp(total, -n.astype(np.int32))
    return np.where(x <= limit, found, np.where(np.isnan(x), x, dtype(0)))


def warp_total(terms):
    """Twin of common.cuh's warp_total: 32 sums of every 32nd term, then halved five times."""
    terms = np.ravel(terms)
    lanes = np.zeros(32, terms.dtype)
    for start in range(0, terms.size, 32):
        part = terms[start : start + 32]
        lanes[: part.size] += part
    for offset in (16, 8, 4, 2, 1):
        lanes[:offset] += lanes[offset : 2 * offset]
    return lanes[0]


def block_total(terms, block):
    """Twin of a sum over a grid by blocks of so many threads: each tile's by block_sum, then sum_partials of these."""

    def halved(warps):
        for offset in (16, 8, 4, 2, 1):
            warps[:, :offset] += warps[:, offset : 2 * offset]
        return warps[:, 0]

    def block_sum(sums):
        of_warps = np.zeros((1, 32), sums.dtype)
        of_warps[0, : block // 32] = halved(sums.reshape(-1, 32).copy())
        return halved(of_warps)[0]

    def in_rows(terms):
        """A row for each round of the block's threads, the last filled up with zeros."""
        return np.pad(np.ravel(terms), (0, -np.size(terms) % block)).reshape(-1, block)

    def in_order(rows):
        total = np.zeros(block, rows.dtype)
        for row in rows:
            total += row
        return total

    rows = in_rows(terms)
    partials = [block_sum(in_order(rows[i : i + SUM_ITEMS])) for i in range(0, len(rows), SUM_ITEMS)]
    return block_sum(in_order(in_rows(np.array(partials, rows.dtype))))


def of_classes(total):
    """(softmax, the categorical cross-entropies of ops.py by name), with the kernels' e^(−x) and sums by total, which
    adds along the last axis and keeps it.
    """

    def softmax(inputs):
        exponentials = exp_minus(inputs.max(axis=-1, keepdims=True) - inputs)
        return exponentials / total(exponentials)

    def others(logits):
        top = np.arange(logits.shape[-1]) == logits.argmax(axis=-1)[..., None]
        shifted = logits - logits.max(axis=-1, keepdims=True)
        return shifted, top, np.where(top, logits.dtype.type(0), exp_minus(-shifted))

    def categorical(y_true, logits):
        shifted, _, exponentials = others(logits)
        return total(y_true * (np.log1p(total(exponentials)) - shifted))[..., 0]

    def backward(y_true, logits):
        _, top, exponentials = others(logits)
        tail = total(exponentials)
        return np.where(top, (1 - y_true) - tail / (1 + tail), exponentials / (1 + tail) - y_true)

    def one_hot(labels, logits):
        return np.eye(logits.shape[-1], dtype=logits.dtype)[labels.astype(int)]

    return softmax, {
        "categorical_crossentropy_from_logits": categorical,
        "categorical_crossentropy_from_logits_backward": backward,
        "sparse_categorical_crossentropy_from_logits": lambda labels, z: categorical(one_hot(labels, z), z),
        "sparse_categorical_crossentropy_from_logits_backward": lambda labels, z: backward(one_hot(labels, z), z),
    }


def in_the_kernels_order():
    """Patch ops so that its sums are taken in train_step.cu's order and e^(−x) is made as there: nothing else."""

    def dense(inputs, kernel, bias=None):
        outputs = product_in_order(inputs, kernel)
        return outputs if bias is None else outputs + bias

    def dense_gradients(d_outputs, inputs, *, out_kernel, out_bias):
        out_kernel[...] = product_in_order(inputs.T, d_outputs)
        if out_bias is not None:
            out_bias[...] = product_in_order(np.ones((1, len(d_outputs)), d_outputs.dtype), d_outputs)[0]

    def sigmoid(inputs):
        t = exp_minus(np.abs(inputs))
        return np.where(inputs >= 0, inputs.dtype.type(1), t) / (1 + t)

    def from_logits(y_true, logits):
        return np.maximum(logits, 0) - logits * y_true + np.log1p(exp_minus(np.abs(logits)))

    def from_logits_backward(y_true, logits):
        t = exp_minus(np.abs(logits))
        tail = t / (1 + t)
        return np.where(logits >= 0, (1 - y_true) - tail, tail - y_true)

    def in_order(terms):
        total = np.zeros(terms.shape[:-1], terms.dtype)
        for c in range(terms.shape[-1]):
            total += terms[..., c]
        return total[..., None]

    softmax, categorical = of_classes(in_order)
    patched = {
        **categorical,
        "dense": dense,
        "dense_gradients": dense_gradients,
        "dense_backward": lambda d_outputs, kernel: product_in_order(d_outputs, kernel.T),
        "binary_crossentropy_from_logits": from_logits,
        "binary_crossentropy_from_logits_backward": from_logits_backward,
        "l1_penalty": lambda weights, *, l1: weights.dtype.type(l1) * warp_total(np.abs(weights)),
        "l2_penalty": lambda weights, *, l2: weights.dtype.type(l2) * warp_total(np.square(weights)),
        "weighted_mean_over_batch": lambda losses: warp_total(losses) / losses.dtype.type(losses.size),
    }
    stack = contextlib.ExitStack()
    for name, function in patched.items():
        stack.enter_context(mock.patch(f"minidl.ops.{name}", function))
    for activation, function in ((activations.sigmoid, sigmoid), (activations.softmax, softmax)):
        own = activation.forward  # of a frozen object, which layers hold
        object.__setattr__(activation, "forward", function)
        stack.callback(object.__setattr__, activation, "forward", own)
    stack.enter_context(mock.patch.object(fused, "fits", lambda model: False))  # the readable step
    return stack


@contextlib.contextmanager
def floatx(dtype):
    before = config.floatx()
    config.set_floatx(dtype)
    try:
        yield
    finally:
        config.set_floatx(before)


def build_mixed():
    """All that the kernel knows in one model: every kind of stage, penalties on kernels and biases, two outputs."""
    layers, l1_l2 = keras.layers, keras.regularizers.l1_l2
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dropout(0.25, seed=5),
            layers.Dense(9, "sigmoid", use_bias=False, kernel_regularizer=l1_l2(0.01, 0.02)),
            layers.Dense(33, "relu", bias_regularizer="l2"),
            layers.Dropout(0.0),
            layers.Dropout(0.5),
            layers.Dense(3, "linear", kernel_regularizer="l1"),
            layers.Dropout(1.0),
            layers.Dense(2, "sigmoid"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01, beta_1=0.8), "mse")
    return model


def build_of_logits():
    """A single layer, of logits, with a learning rate that changes, and XLA's masks on its inputs."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.1), keras.layers.Dense(1)])
    rate = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.5)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    accuracy = keras.metrics.BinaryAccuracy(threshold=0.3)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=[accuracy], jit_compile=True)
    return model


def build_of_classes():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "relu"), keras.layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "categorical_crossentropy", metrics=["accuracy"])
    return model


def build_of_class_numbers():
    """With an optimizer that decays the kernels alone, clips, and keeps the largest v."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.2), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rate = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.5)
    optimizer = keras.optimizers.AdamW(rate, 0.7, amsgrad=True, clipvalue=0.02)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


# What labels a training takes, of the birds' measurements and sexes.
LABELS = {
    "mixed": lambda x, y: np.stack([y, 1 - y], axis=1),
    "classes": lambda x, y: np.eye(3)[(y + (x[:, 0] > 0)).astype(int)],
    "class numbers": lambda x, y: y + (x[:, 0] > 0),
}
# What weights its samples have, in training and validation.
WEIGHTS = {
    "mixed": lambda rows, held_out: {"sample_weight": (np.arange(rows) % 7 / 4, np.arange(held_out) % 5 / 2)},
    "of logits": lambda rows, held_out: {"sample_weight": (None, np.arange(held_out) % 5 / 2)},
    "classes": lambda rows, held_out: {"class_weight": {0: 2.0, 2: 0.3}},
}
TRAININGS = {
    "classes": build_of_classes,
    "class numbers": build_of_class_numbers,
    "L1 and L2": lambda: notebook.build_without_dropout(keras),
    "L1, L2 and dropout": lambda: notebook.build_with_dropout(keras),
    "mixed": build_mixed,
    "of logits": build_of_logits,
}


def launcher(run, **launch):
    """many.Launch by a Kernels: on copies of the arrays, whose addresses and ends are those of a GPU's."""

    def start(kernel, grid, block, arguments, shared):
        copies = [host.array(a) if isinstance(a, np.ndarray) else a for a in arguments]
        name = kernel.rpartition("_")[0]
        assert name == "train_epochs"
        run(name, *copies, grid=grid, block=block, shared=shared, **launch)
        for given, copy in zip(arguments, copies, strict=True):
            if isinstance(given, np.ndarray):
                given[...] = copy

    return start


def check_train_step(dtype, sanitize=None):
    """60 steps from two seeds: minidl's own readable training with its sums in the kernel's order leaves the same bits
    in weights, m, v, seeds and accuracies, whatever the block's size and the order of its threads.

    The losses of the history: ln(1 + t) is LOG1P·u off on either side; all else is the same arithmetic on numbers ≥ 0,
    sums of at most samples + 5 terms and a dozen of roundings, each of which may then go another way.
    """
    run, seeds = Kernels("train_step", dtype, sanitize), (3, 812)
    (x, y), validation = notebook.data()
    rows = 40 if sanitize == "thread" else len(x)
    epochs = 2 if sanitize == "thread" else 7
    x, y = x[:rows].astype(dtype), y[:rows].astype(dtype)
    for title, build in TRAININGS.items():
        labels, held_out = (LABELS.get(title, lambda x, y: y)(*data) for data in ((x, y), validation))
        watch = {"few": (x[:5], labels[:5]), "many": (x[:37], labels[:37])}
        settings = {"epochs": epochs, "batch_size": 32, "validation_data": (validation[0], held_out), "shuffle": True}
        settings |= {} if title == "of logits" else {"watch": watch}
        weights = WEIGHTS.get(title, lambda *_: {})(rows, len(held_out))
        if "sample_weight" in weights:
            weights["sample_weight"], of_held_out = weights["sample_weight"]
            settings["validation_data"] += (of_held_out,)
        settings |= weights
        with floatx(dtype):
            with in_the_kernels_order():
                expected = many.fit_many(build, x, labels, seeds=seeds, device="cpu", **settings)
            for launch in few([("forward", 128), ("reverse", 32), ("shuffled", 96)], sanitize):
                order, block = launch if sanitize != "thread" else (launch[0], 64)
                with mock.patch.object(many.Plan, "threads", lambda *_, block=block: block):
                    found = many.fit_in_one_launch(
                        build, x, labels, seeds=seeds, launch=launcher(run, order=order), check_finite=True, **settings
                    )
                for ours, other in zip(found.models, expected.models, strict=True):
                    states = ours.get_state(), other.get_state()
                    assert list(states[0]) == list(states[1])
                    for name, value in states[1].items():
                        assert_same(states[0][name], value)
                assert list(found.history) == list(expected.history)
                for name, values in expected.history.items():
                    assert values.shape == (2, epochs)
                    relative = 2 * (gamma(rows + 20, dtype) + LOG1P * unit(dtype)) if "loss" in name else 0.0
                    assert_close(found.history[name], values, atol=0, rtol=relative, what=f"{title}: {name}")


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
    checked = CHECKS
    if kernels and kernels[0] in CHECKS:
        name, Kernels.directory = kernels[0], Path(kernels[1])
        checked, kernels = {name: CHECKS[name]}, ()
    for kernel in kernels:
        run_fault(kernel, sanitize)
    if not kernels:
        for name, check in checked.items():
            for dtype in DTYPES[: 1 if sanitize == "thread" else 2]:
                print(name, dtype, flush=True)
                check(dtype, sanitize)


if __name__ == "__main__":
    main(*sys.argv[1:])
