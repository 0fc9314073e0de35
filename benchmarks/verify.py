"""Whether a peer computed the training step: each step, from the peer's own weights before it, in float64 with a bound.

A peer hands over its weights after each of a few steps. From the weights before a step, which are known exactly, its
gradients are computed in float64, with a bound on what float32 may make of them; of these Adam's m and v, the update,
and its bound. So errors do not compound from step to step. The bounds are derived from u = 2⁻²⁴. Of a gradient there
are two, and the smaller counts, element by element.

Worst: whatever the errors' signs.

- a sum of n products, in any order: cₙ |A||B| with cₙ = min(nu/(1 − nu), exp(λ√n u + nu²) − 1). The first holds always
  (Higham 2002, §3.1), the second, with λ = 9, but for a chance of 2n e^(−40) (Higham & Mary 2019, theorem 2.4);
- through a layer: |Δ(AB)| ≤ cₙ(|A| + ΔA)(|B| + ΔB) + ΔA(|B| + ΔB) + |A|ΔB; through ReLU |Δh| ≤ Δz, or 0
  where z < −Δz, and where |z| ≤ Δz the derivative may be 0 or 1.

It grows with the absolute row sums of each kernel: 1024 wide or 8 deep, no step at all is within it.

Likely: the roundings as independent random numbers of mean 0 and at most u, so that their squares add up (Higham &
Mary 2019). s is the scale of an error, which exceeds λs with a chance of at most 2e^(−λ²/2) = 2e^(−40) (Hoeffding
1963); so λs bounds it, and this for all 10⁸ elements of a run too.

- a sum of n products: each rounding is u of a partial sum, whose square is about Σ a²b² + (Σ ab)² where the products
  are in no order of size or sign (Higham & Mary 2020, random data): s² = n u² (A²B² + (AB)²), squares by elements. BLAS
  adds in several running sums, whose squares are smaller;
- through a layer: s²(AB) = that + s²(A) B² + A² s²(B) + s²(A) s²(B). The errors of a row's elements are taken for
  uncorrelated; of kernels drawn around 0 the sum of their covariances is 0 on average;
- where |z| ≤ λs(z) the derivative may be 0 or 1, and the gradient there has the scale of itself.

It grows as the values themselves do, and leaves elements of every array sharp at any width and depth.

Both:

- the loss's gradient (σ(z) − y)/B: |σ′| ≤ ¼, and 16u for the sigmoid, the quotient and the ways to write it;
- Adam: m and v are sums, each with its error; |α m/(√v + ε)| from the ends of the intervals of m and of v, and never
  more off than itself and what Cauchy and Schwarz allow, α(1 − β₁)/√(1 − β₂)·√(Σ (β₁²/β₂)ᵏ); α from βᵗ, whose rounding
  is magnified by 1/(1 − βᵗ).

What the weights cannot show: Adam divides a factor of the gradient out again, but for ε, so that a gradient that was
summed, not averaged, is seen only where |g| is not far above ε; the losses and Adam's slots would show it.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import replace

import numpy as np
from networks import BETA_1, BETA_2, EPSILON, LEARNING_RATE, Case

U = 2.0**-24
TF32 = 2.0**-11  # of an operand that was rounded to 10 bits
LAMBDA = 9.0
NO_BOUND = 1e15  # of very deep networks: then only Adam's own largest update bounds a step
TINY = 1e-37  # below it float32 has fewer digits, or none


class Wrong(AssertionError):
    """A peer computed something else."""


def sum_error(n: int) -> float:
    """cₙ."""
    likely = math.expm1(LAMBDA * math.sqrt(n) * U + n * U**2)
    return min(n * U / (1 - n * U), likely) if n * U < 1 else likely


def product_error(a, d_a, b, d_b, operand: float = 0.0) -> np.ndarray:
    """Worst's bound on a computed A B, given those on A and B (0: exact). operand: further rounding of each factor.

    The sums of positive numbers are made in float32, whose own error, below 2⁻¹⁰, is added.
    """
    a, b = abs(a), abs(b)
    c = sum_error(a.shape[1]) + 2 * operand + operand**2
    wide_b = (b + d_b).astype(np.float32)
    bound = ((c * (a + d_a)) + d_a).astype(np.float32) @ wide_b
    if not np.isscalar(d_b):
        bound += a.astype(np.float32) @ d_b.astype(np.float32)
    return np.minimum(bound.astype(np.float64) * (1 + 2**-10) + TINY, NO_BOUND)


def product_of_squares(a, b) -> np.ndarray:
    """A B of positive numbers, in float32, each matrix divided by its largest, lest its squares vanish."""
    top_a, top_b = max(a.max(), TINY**2), max(b.max(), TINY**2)
    return ((a / top_a).astype(np.float32) @ (b / top_b).astype(np.float32)).astype(np.float64) * (top_a * top_b)


class Worst:
    """Errors as the ends of intervals: they add up."""

    reach = 1.0

    @staticmethod
    def product(a, d_a, b, d_b, out, operand: float) -> np.ndarray:
        """On the computed product A B = out."""
        return product_error(a, d_a, b, d_b, operand)

    @staticmethod
    def of_sum(n: int) -> float:
        """On a sum of n terms, of the size of a term."""
        return sum_error(n)

    @staticmethod
    def add(a, b):
        return a + b


class Likely:
    """Errors as sub-Gaussian scales, which exceed λ of themselves with a chance of 2e^(−λ²/2): their squares add up."""

    reach = LAMBDA

    @staticmethod
    def product(a, d_a, b, d_b, out, operand: float) -> np.ndarray:
        n = a.shape[1]
        a_squared, b_squared = a**2, b**2
        total = product_of_squares((n * U**2 + 2 * operand**2) * a_squared + d_a**2, b_squared) + n * U**2 * out**2
        if not np.isscalar(d_b):
            total += product_of_squares(a_squared + d_a**2, d_b**2)
        return np.sqrt(total * (1 + 2**-10)) + TINY

    @staticmethod
    def of_sum(n: int) -> float:
        return math.sqrt(n) * U

    @staticmethod
    def add(a, b):
        return np.hypot(a, b)


def kept_by(case: Case, masks, layer: int):
    """What the dropout after this layer multiplies by, or None."""
    if masks is None or case.rate(layer) == 0:
        return None
    return masks[layer] / (1 - case.rate(layer))


def forward(case: Case, weights, x, masks=None):
    """Each layer's (inputs, pre-activations), in float64."""
    a, layers = x.astype(np.float64), []
    for i in range(len(case.layers)):
        kernel, bias = (w.astype(np.float64) for w in weights[2 * i : 2 * i + 2])
        z = a @ kernel + bias
        layers.append((a, z))
        keep = kept_by(case, masks, i)
        a = np.maximum(z, 0.0) * (1.0 if keep is None else keep)
    return layers


def forward_errors(rule, case: Case, weights, layers, masks=None, operand: float = 0.0):
    """Each layer's (error of the inputs, of the pre-activations), by Worst or Likely."""
    d_a, found = 0.0, []
    for i, (a, z) in enumerate(layers):
        kernel, bias = (w.astype(np.float64) for w in weights[2 * i : 2 * i + 2])
        d_z = rule.add(rule.product(a, d_a, kernel, 0.0, z, operand), rule.of_sum(len(kernel) + 1) * abs(bias))
        found.append((d_a, d_z))
        d_a = np.where(z < -rule.reach * d_z, 0.0, d_z)
        keep = kept_by(case, masks, i)
        if keep is not None:
            d_a = rule.add(d_a, 3 * U * (np.maximum(z, 0.0) + d_a)) * keep
    return found


def gradients(case: Case, weights, x, y, masks=None, operand: float | None = 0.0):
    """(gradient, bound on its error) of each weight, penalties included. operand None: the bounds are 0."""
    layers = forward(case, weights, x, masks)
    d = (1 / (1 + np.exp(-layers[-1][1])) - y) / len(x)
    found, upstream = [], []
    for i in reversed(range(len(case.layers))):
        kernel = weights[2 * i].astype(np.float64)
        upstream.append(d)
        l1, l2 = case.penalties(i)
        found += [d.sum(axis=0), layers[i][0].T @ d + l1 * np.sign(kernel) + 2 * l2 * kernel]
        if i:
            keep = kept_by(case, masks, i - 1)
            d = d @ kernel.T * (layers[i - 1][1] > 0) * (1.0 if keep is None else keep)
    found, upstream = found[::-1], upstream[::-1]
    if operand is None:
        return [(g, 0.0) for g in found]
    bounds = [gradient_errors(rule, case, weights, layers, upstream, found, masks, operand) for rule in (Worst, Likely)]
    return [(g, np.minimum(*both)) for g, *both in zip(found, *bounds, strict=True)]


def gradient_errors(rule, case: Case, weights, layers, upstream, found, masks, operand: float):
    """The bound on each gradient found, by Worst or Likely. upstream: the gradients of the layers' pre-activations."""
    errors = forward_errors(rule, case, weights, layers, masks, operand)
    rows, bounds = len(layers[0][0]), []
    d_d = rule.add(errors[-1][1] / 4, 16 * U) / rows
    for i in reversed(range(len(layers))):
        (a, _), d_a, d = layers[i], errors[i][0], upstream[i]
        kernel, g = weights[2 * i].astype(np.float64), found[2 * i]
        bound = rule.product(a.T, d_a.T if i else 0.0, d, d_d, g, operand)
        l1, l2 = case.penalties(i)
        if l1 or l2:
            penalty = l1 * np.sign(kernel) + 2 * l2 * kernel
            bound = rule.add(bound, U * abs(g) + 4 * U * abs(penalty)) * (1 + U)
        of_bias = rule.product(np.ones((1, rows)), 0.0, d, d_d, found[2 * i + 1], 0.0)[0]
        bounds += [rule.reach * of_bias, rule.reach * bound]
        if i == 0:
            break
        z, d_z = layers[i - 1][1], errors[i - 1][1]
        d_h = d @ kernel.T  # of the outputs below
        d_d = rule.product(d, d_d, kernel.T, 0.0, d_h, operand)
        keep = kept_by(case, masks, i - 1)
        if keep is not None:
            d_h, d_d = d_h * keep, rule.add(d_d, 3 * U * abs(d_h)) * keep
        unsure = abs(z) <= rule.reach * d_z
        d_d = np.where(unsure, rule.add(abs(d_h), d_d), np.where(z > 0, d_d, 0.0))
    return bounds[::-1]


class Adam:
    """m, v and their errors, and the update with its error.

    outer_epsilon: torch adds ε to √(v/(1 − β₂ᵗ)), the others to √v: torch's ε counts √(1 − β₂ᵗ) times.
    """

    def __init__(self, case: Case, *, outer_epsilon: bool = False) -> None:
        self.outer_epsilon, self.t = outer_epsilon, 0
        shapes = [shape for inputs, units in case.layers for shape in ((inputs, units), (units,))]
        self.m, self.v, self.d_m, self.d_v = ([np.zeros(shape) for shape in shapes] for _ in range(4))
        ratio = BETA_1**2 / BETA_2
        self.most = (1 - BETA_1) / math.sqrt(1 - BETA_2) / math.sqrt(1 - ratio)  # of |m|/√v

    def updates(self, of_gradients):
        """[(update, bound)] of the next step; of_gradients: [(gradient, bound)]."""
        self.t += 1
        t, found = self.t, []
        alpha = LEARNING_RATE * math.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)
        epsilon = EPSILON * (math.sqrt(1 - BETA_2**t) if self.outer_epsilon else 1.0)
        self.rounding = rounding = (t + 1) * U / (1 - BETA_2**t) + 2 * (t + 1) * U / (1 - BETA_1**t) + 12 * U
        for i, (g, d_g) in enumerate(of_gradients):
            d_g = d_g + TINY
            self.d_m[i] = BETA_1 * self.d_m[i] + (1 - BETA_1) * d_g + 4 * U * (abs(self.m[i]) + abs(g))
            self.m[i] = BETA_1 * self.m[i] + (1 - BETA_1) * g
            self.d_v[i] = BETA_2 * self.d_v[i] + (1 - BETA_2) * (2 * abs(g) * d_g + d_g**2) + 4 * U * (self.v[i] + g**2)
            self.v[i] = BETA_2 * self.v[i] + (1 - BETA_2) * g**2
            m, d_m, v, d_v = self.m[i], self.d_m[i], self.v[i], self.d_v[i] + TINY
            low, high = np.sqrt(np.maximum(v - d_v, 0)) + epsilon, np.sqrt(v + d_v) + epsilon
            update = alpha * m / (np.sqrt(v) + epsilon)
            ends = alpha * (abs(m) + d_m) / low, alpha * np.maximum(abs(m) - d_m, 0) / high
            # where m may have either sign, the ends are of both signs
            spread = np.where(abs(m) > d_m, 0.0, ends[0])
            bound = np.maximum(ends[0] - abs(update), abs(update) - ends[1]) + spread
            bound = np.minimum(bound, abs(update) + alpha * self.most)
            found.append((update, bound + rounding * abs(update)))
        return found

    def copy(self) -> Adam:
        other = Adam.__new__(Adam)
        vars(other).update({k: list(v) if isinstance(v, list) else v for k, v in vars(self).items()})
        return other


class Lockstep:
    """Judges a peer's steps in turn."""

    def __init__(self, case: Case, *, outer_epsilon: bool = False, operand: float = 0.0) -> None:
        self.case, self.operand, self.adam = case, operand, Adam(case, outer_epsilon=outer_epsilon)
        self.x, self.y = case.data()
        self.step = 0

    def check(self, before, after, masks=None) -> float:
        """The worst |error| / bound of the step from these weights to those. Errors: Wrong if it is above 1."""
        rows = self.case.rows(self.step)
        self.step += 1
        if self.step == 1 and masks is None and same(before, self.case.weights()):
            adam, updates = first_step(self.case, self.adam.outer_epsilon, self.operand)
            self.adam = adam.copy()
        else:
            updates = self.adam.updates(gradients(self.case, before, self.x[rows], self.y[rows], masks, self.operand))
        return worst(before, after, updates, f"step {self.step} of {self.case.name}")


@functools.lru_cache(maxsize=2)
def first_step(case: Case, outer_epsilon: bool, operand: float):
    """Adam and its updates in the first step from the case's weights, which every peer takes."""
    adam, (x, y) = Adam(case, outer_epsilon=outer_epsilon), case.data()
    rows = case.rows(0)
    return adam, adam.updates(gradients(case, case.weights(), x[rows], y[rows], None, operand))


def same(got, expected) -> bool:
    """Whether these are equal arrays."""
    return len(got) == len(expected) and all(
        g.dtype == e.dtype and np.array_equal(g, e) for g, e in zip(got, expected, strict=True)
    )


def worst(before, after, updates, where: str) -> float:
    """The worst |error| / bound of the weights after a step. Errors: Wrong, naming the place, if it is above 1."""
    largest = 0.0
    for i, (old, new, (update, bound)) in enumerate(zip(before, after, updates, strict=True)):
        if new.shape != old.shape or new.dtype != np.float32:
            raise Wrong(f"{where}: weight {i} should be float32 of shape {old.shape}; got {new.dtype}, {new.shape}.")
        moved = new.astype(np.float64) - old
        allowed = bound + 2 * U * (abs(old) + abs(new))  # the subtraction, and that of a folded decay
        ratio = abs(moved + update) / allowed
        if not np.isfinite(ratio).all() or ratio.max() > 1:
            at = np.unravel_index(np.argmax(np.where(np.isfinite(ratio), ratio, np.inf)), ratio.shape)
            raise Wrong(
                f"{where}: weight {i} at {tuple(map(int, at))} moved by {moved[at]:.9g}; a float64 step moves it by "
                f"{-update[at]:.9g}, and float32 may err by {allowed[at]:.2g}. The peer computed something else."
            )
        largest = max(largest, float(ratio.max()))
    return largest


def check_masks(case: Case, states, *, outer_epsilon: bool = False) -> None:
    """Whether steps on one row are steps of dropout: to each belong masks that explain it, and these keep 1 − rate.

    states: the weights before the first step and after each. All 2⁸ masks of the two hidden layers are tried. Errors:
    Wrong if none explains a step, or if a layer keeps a share that is 5 standard deviations from 1 − rate.
    """
    x, y = case.data()
    units = case.widths[1:3]
    adam = Adam(case, outer_epsilon=outer_epsilon)
    kept: list[list[float]] = [[], []]
    for before, after in itertools.pairwise(states):
        explained = []
        for flags in itertools.product((0.0, 1.0), repeat=sum(units)):
            masks = [np.array(flags[: units[0]]), np.array(flags[units[0] :])]
            batch = x[case.rows(0)], y[case.rows(0)]
            rough = adam.copy().updates(gradients(case, before, *batch, masks, operand=None))
            if any(
                abs(new - old + update).max() > LEARNING_RATE / 100
                for old, new, (update, _) in zip(before, after, rough, strict=True)
            ):
                continue  # far off: the bound need not be known
            tried = adam.copy()
            updates = tried.updates(gradients(case, before, *batch, masks))
            try:
                worst(before, after, updates, "")
            except Wrong:
                continue
            explained.append((masks, tried))
        if not explained:
            raise Wrong(f"step {adam.t + 1} of {case.name}: no choice of dropped units explains the weights after it.")
        adam = explained[0][1]
        for layer in (0, 1):
            seen = np.array([masks[layer] for masks, _ in explained])
            agreed = (seen == seen[0]).all(axis=0)
            kept[layer] += seen[0][agreed].tolist()
    for layer, flags in enumerate(kept):
        keep = 1 - case.rate(layer)
        deviation = math.sqrt(keep * (1 - keep) / max(1, len(flags)))
        if len(flags) < 20 or abs(np.mean(flags) - keep) > 5 * deviation:
            raise Wrong(
                f"{case.name}: dropout {layer + 1} kept {sum(flags):.0f} of {len(flags)} units; its rate is "
                f"{case.rate(layer)}, so {keep * len(flags):.0f} ± {5 * deviation * len(flags):.0f} would be right."
            )


def free_run(case: Case, steps, weights, *, noise: np.random.Generator | None = None, outer_epsilon: bool = False):
    """The weights after training alone in float64 on the batches (x, y) of steps.

    noise: each gradient off by up to its bound, at random, and α by a random part of its own, the same in the whole
    run, since β is rounded once: what a run in float32 may come to.
    """
    alpha_off = 0.0 if noise is None else noise.uniform(-1, 1)
    adam, weights = Adam(case, outer_epsilon=outer_epsilon), [w.astype(np.float64) for w in weights]
    for x, y in steps:
        found = gradients(case, weights, x, y)
        if noise is not None:
            found = [(g + d_g * noise.uniform(-1, 1, g.shape), d_g) for g, d_g in found]
        updates = adam.updates(found)
        weights = [w - (1 + alpha_off * adam.rounding) * u for w, (u, _) in zip(weights, updates, strict=True)]
        if noise is not None:
            weights = [w + U * abs(w) * noise.uniform(-1, 1, w.shape) for w in weights]
    return weights


def check_run(case: Case, steps, weights, result, *, runs: int = 8, outer_epsilon: bool = False) -> float:
    """How far a whole run in float32 ends from the one in float64, over what is allowed. Errors: Wrong if above 1.

    Allowed is four times the largest distance of a few runs whose every gradient, α and weight is off by random parts
    of its bound (Monte Carlo arithmetic, Parker 1997); largest over each array, since the runs are few.
    """
    truth = free_run(case, steps, weights, outer_epsilon=outer_epsilon)
    rng = np.random.default_rng(SEED_OF_RUNS)
    others = [free_run(case, steps, weights, noise=rng, outer_epsilon=outer_epsilon) for _ in range(runs)]
    largest = 0.0
    for i, (right, got) in enumerate(zip(truth, result, strict=True)):
        allowed = 4 * max(abs(other[i] - right).max() for other in others) + 4 * U * abs(right).max()
        off = abs(np.asarray(got, np.float64) - right).max() if np.shape(got) == right.shape else np.inf
        if not off <= allowed:
            raise Wrong(
                f"{case.name}: after {len(steps)} steps weight {i} is off by {off:.2g}; runs with float32's errors are "
                f"by {allowed / 4:.2g} at most, and four times that is allowed. The peer computed something else."
            )
        largest = max(largest, off / allowed)
    return largest


SEED_OF_RUNS = 11


def check_outputs(case: Case, weights, x, outputs) -> None:
    """Whether these are the network's outputs on x. |Δσ| ≤ ¼|Δz| + 4u. Errors: Wrong."""
    plain = replace(case, rates=(0.0, 0.0))
    layers = forward(plain, weights, x)
    z = layers[-1][1]
    d_z = np.minimum(*(rule.reach * forward_errors(rule, plain, weights, layers)[-1][1] for rule in (Worst, Likely)))
    off = abs(np.asarray(outputs, np.float64).reshape(z.shape) - 1 / (1 + np.exp(-z)))
    if not (off <= d_z / 4 + 4 * U).all():
        raise Wrong(f"{case.name}: an output is off by {np.max(off):.2g}. The peer computed something else.")
