"""The judge raises no false alarm over random models, and names what a planted fault is and where it lies."""

import contextlib
import dataclasses

import judge_models
import judge_steps
import numpy as np
import pytest
import report_cases
from hypothesis import example, given, settings
from hypothesis import strategies as st
from judge_models import RandomModel

import minidl.keras as k
from minidl import activations, config, losses, metrics, ops, optimizers, random, training, utils
from minidl.layers import Dropout
from minidl.oracle import bounds, layer_bounds, noise_bounds, optimizer_bounds
from minidl.oracle.bounds import Arithmetic, Ball, Product
from minidl.oracle.judge import Judge, _compare, judge_start
from minidl.oracle.steps import BIT_EQUAL, DIVERGENT, NOT_OBSERVED, QUANTITIES, WITHIN_BOUND

seeds = st.integers(0, 2**32 - 1)


def built(case, dtype="float32"):
    """The case's model, from the same names and seed each time."""
    config.set_floatx(dtype)
    utils.clear_session(free_memory=False)
    utils.set_random_seed(7)
    return case.build(k)


def judged(case, dtype="float32", order=None, change=lambda step: step):
    """All checks of a case's steps, each step changed before it is judged."""
    trained, judge = built(case, dtype), Judge(built(case, dtype))
    found = []
    for number, batch in enumerate(case.data):
        with judge_steps.other_order(order) if order is not None else contextlib.nullcontext():
            step = judge_steps.step_of(trained, *batch, number=number, batch=number)
        found += judge.judge(change(step))
    return found


def alarms(checks):
    return [check for check in checks if check.verdict == DIVERGENT or check.own_share > 1]


# ------------------------------------------------------------------------------------- no false alarms


@settings(max_examples=60)
@example(747, "float64", None)  # sums of gradients that come to a NaN, and then are set to 0
@given(seeds, st.sampled_from(["float32", "float64"]), st.none() | seeds)
def test_a_right_step_is_never_divergent(seed, dtype, order):
    checks = judged(RandomModel(seed), dtype, order)
    assert not alarms(checks), alarms(checks)[:3]
    if order is None:
        assert {check.verdict for check in checks} <= {BIT_EQUAL, NOT_OBSERVED}


def without(step, *names):
    return dataclasses.replace(step, **dict.fromkeys(names))


NOTHING_INSIDE = ("noise", "pre_activations", "activations", "data_loss", "loss", "penalties", "gradients")


@settings(max_examples=40)
@given(seeds, st.none() | seeds)
def test_nor_is_a_step_that_was_not_looked_into(seed, order):
    """As under XLA: weights, slots and metrics are judged through the whole step, all else is not observed."""
    checks = judged(RandomModel(seed), order=order, change=lambda step: without(step, *NOTHING_INSIDE))
    assert not alarms(checks), alarms(checks)[:3]
    inside = {"pre_activation", "activation", "loss", "penalty", "gradient"}
    assert {check.verdict for check in checks if check.quantity in inside} == {NOT_OBSERVED}
    weights = [check for check in checks if check.quantity == "weight" and "no bound" not in check.reason]
    assert {check.verdict for check in weights} <= {BIT_EQUAL, WITHIN_BOUND}


@pytest.mark.parametrize("name", judge_models.LAYERS)
def test_every_kind_of_layer(name):
    assert not alarms(judged(RandomModel(3, layer=name, rows=7, scale=1.0), order=1))


@pytest.mark.parametrize("name", judge_models.ACTIVATIONS)
def test_every_activation(name):
    case = RandomModel(4, activation=name, rows=7, scale=1.0, layer=None)
    checks = judged(case, order=2)
    assert not alarms(checks)
    assert any(check.formula == f"ops.{name}" for check in checks)


@pytest.mark.parametrize("name", judge_models.LOSSES)
@pytest.mark.parametrize("scale", [0.0, 1.0, 300.0])
def test_every_loss(name, scale):
    assert not alarms(judged(RandomModel(5, loss=name, rows=7, scale=scale), order=3))


@pytest.mark.parametrize("name", judge_models.OPTIMIZERS)
def test_every_optimizer(name):
    assert not alarms(judged(RandomModel(6, optimizer=name, rows=7, scale=1.0), order=4))


@pytest.mark.parametrize("t_mul", [1.0, 1.5, 2.0])
def test_the_rate_of_a_cosine_that_starts_anew(t_mul):
    schedule = k.optimizers.schedules.CosineDecayRestarts(0.1, 7, t_mul=t_mul, m_mul=0.8, alpha=0.05)
    found = [optimizer_bounds.learning_rate(schedule, batch) for batch in range(60)]
    for batch, ball in enumerate(found):
        assert ball.share(np.asarray(schedule(batch))) <= 1 and not ball.unbounded
    assert sum(ball.radius < 1e-5 for ball in found) > 50  # where a period ends, either rate is right


def test_inputs_of_more_axes():
    def make():
        utils.clear_session(free_memory=False)
        utils.set_random_seed(7)
        model = k.Sequential(
            [
                k.layers.Input((3, 4)),
                k.layers.Dense(6, "gelu"),
                k.layers.LayerNormalization(axis=[1, 2]),
                k.layers.PReLU(shared_axes=[1]),
                k.layers.Softmax(axis=1),
                k.layers.Dropout(0.3, (None, 1, 6)),
                k.layers.Dense(2),
            ]
        )
        model.compile("adam", "mse", metrics=["mae"])
        return model

    rng = np.random.default_rng(0)
    trained, judge = make(), Judge(make())
    with judge_steps.other_order(1):
        step = judge_steps.step_of(trained, rng.normal(size=(5, 3, 4)), rng.normal(size=(5, 3, 2)))
    checks = judge.judge(step)
    assert not alarms(checks), alarms(checks)
    assert [check.quantity for check in checks if check.layer == "dropout"][:1] == ["mask"]


def counted(positions, epochs=None):
    """What is said of the number of batches: [(step, reason)] of a fit whose steps are at (epoch, batch), of four."""
    judge = Judge(report_cases.built(), data=report_cases.data(), batch_size=8, shuffle=False)
    found = []
    for number, ((epoch, batch), step) in enumerate(zip(positions, report_cases.steps(), strict=False)):
        found += judge.judge(dataclasses.replace(step, number=number, epoch=epoch, batch=batch))
    found += judge.end(epochs)
    return [(check.step, check.reason) for check in found if check.name == "count"]


def test_batches_that_never_come_and_one_too_many():
    whole = [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert counted(whole) == counted(whole, 1) == []
    assert counted(whole, 2) == [(4, "the fit ended after 1 of 2 epochs")]
    short = "epoch 0 ended after 3 batches, where 32 rows make 4 of 8"
    assert counted([*whole[:3], (1, 0)])[:1] == [(3, short)]
    assert counted(whole[:3]) == [(3, short)]
    assert counted([*whole[:3], (0, 4)]) == [(3, "batch 4 of epoch 0 came, counted from 0, where 32 rows make 4 of 8")]


# -------------------------------------------------------------------------------------- planted faults


def model(optimizer=None, loss="binary_crossentropy", *, dropout=0.4, metric="accuracy", **dense):
    def build():
        utils.clear_session(free_memory=False)
        utils.set_random_seed(7)
        found = k.Sequential(
            [
                k.layers.Input((5,)),
                k.layers.Dense(8, "tanh", bias_initializer="random_normal", name="first", **dense),
                k.layers.Dropout(dropout),
                k.layers.BatchNormalization(momentum=0.6),
                k.layers.Dense(4, "gelu", name="second"),
                k.layers.Dense(1, "sigmoid", name="last"),
            ]
        )
        found.compile(optimizer() if optimizer else k.optimizers.Adam(0.01), loss, metrics=[metric])
        return found

    return build


def patched(name, make):
    """A change of a formula of ops: make(plain) -> another."""

    def plant(monkeypatch, trained):
        monkeypatch.setattr(ops, name, make(getattr(ops, name)))

    return plant


def activated(layer, **changes):
    """A change of a layer's activation, forward or backward: make(plain) -> another."""

    def plant(monkeypatch, trained):
        found = trained.get_layer(layer)
        made = {name: make(getattr(found.activation, name)) for name, make in changes.items()}
        monkeypatch.setattr(found, "activation", dataclasses.replace(found.activation, **made))

    return plant


def swapped_betas(plain):
    return lambda *args, beta_1, beta_2, **kwargs: plain(*args, beta_1=beta_2, beta_2=beta_1, **kwargs)


def epsilon_in_the_root(plain):
    def step(theta, g, m, v, *, step, learning_rate, beta_1, beta_2, epsilon, work):
        alpha = ops.adam_alpha(np.float32, step=step, learning_rate=learning_rate, beta_1=beta_1, beta_2=beta_2)
        m += (g - m) * np.float32(1 - beta_1)
        v += (g * g - v) * np.float32(1 - beta_2)
        theta -= alpha * m / np.sqrt(v + np.float32(epsilon))

    return step


def without_maximum(plain):
    def step(theta, g, m, v, v_hat, **settings):
        v_hat[...] = 0
        plain(theta, g, m, v, v_hat, **settings)

    return step


def in_float16(plain):
    return lambda inputs, kernel, bias=None, out=None: plain(
        inputs.astype("e").astype("f"), kernel.astype("e").astype("f"), bias
    )


def never_kept(monkeypatch, trained):
    monkeypatch.setattr(ops, "dropout_backward", lambda d, mask, *, rate: d / np.float32(1 - rate))


def counter_stays(monkeypatch, trained):
    draw = Dropout.draw_mask

    def draw_mask(layer, shape):
        found = draw(layer, shape)
        layer.seed_generator.state[1] -= 1
        return found

    monkeypatch.setattr(Dropout, "draw_mask", draw_mask)


def mask_of_another_step(monkeypatch, trained):
    monkeypatch.setattr(Dropout, "draw_mask", lambda layer, shape: random.dropout_mask(
        shape, layer.rate, (int(layer.seed_generator.next()[0]), 12)))  # fmt: skip


def iteration_stays(monkeypatch, trained):
    apply = optimizers.Optimizer.apply

    def again(optimizer, arena):
        apply(optimizer, arena)
        optimizer._batches -= 1

    monkeypatch.setattr(optimizers.Optimizer, "apply", again)


def constraint_forgotten(monkeypatch, trained):
    from minidl import training

    monkeypatch.setattr(training, "apply_constraints", lambda model: None)


def every_batch_counts_alike(monkeypatch, trained):
    plain = metrics.Mean.add
    monkeypatch.setattr(metrics.Mean, "add", lambda mean, total, count: plain(mean, total / count, 1))


def weights_ignored(monkeypatch, trained):
    monkeypatch.setattr(losses.Loss, "weights", lambda loss, y, weight: None)


def unbiased_variance(plain):
    def moments(inputs, *, axes):
        mean, variance = plain(inputs, axes=axes)
        n = inputs.size // mean.size
        return mean, variance * np.float32(n / (n - 1))

    return moments


def scaled(factor):
    return lambda plain: lambda *args, **kwargs: plain(*args, **kwargs) * np.float32(factor)


SGD = lambda: k.optimizers.SGD(0.1, momentum=0.9, nesterov=True)  # noqa: E731
CLIPPED = lambda: k.optimizers.Adam(0.01, global_clipnorm=0.01)  # noqa: E731
DECAYED = lambda: k.optimizers.AdamW(0.01)  # noqa: E731
AMSGRAD = lambda: k.optimizers.Adam(0.01, amsgrad=True)  # noqa: E731
AVERAGED = lambda: k.optimizers.Adam(0.01, use_ema=True)  # noqa: E731
ACCUMULATING = lambda: k.optimizers.SGD(0.01, gradient_accumulation_steps=2)  # noqa: E731
SCHEDULED = lambda: k.optimizers.SGD(k.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5))  # noqa: E731
SMOOTHED = k.losses.BinaryCrossentropy(label_smoothing=0.1)

# what is wrong: the model, the fault, and what should be named first: quantity, layer, name
FAULTS = {
    "a product in float16": (model(), patched("dense", in_float16), ("pre_activation", "first", "outputs")),
    "no bias": (
        model(),
        patched("dense", lambda plain: lambda x, w, b=None, out=None: plain(x, w)),
        ("pre_activation", "first", "outputs"),
    ),
    "gelu off by 1e-5": (model(), activated("second", forward=scaled(1 + 1e-5)), ("activation", "second", "outputs")),
    "gelu approximated": (
        model(),
        activated("second", forward=lambda plain: lambda x: plain(x, approximate=True)),
        ("activation", "second", "outputs"),
    ),
    "dropout not scaled": (
        model(),
        patched("dropout", lambda plain: lambda x, mask, *, rate, out=None: x * mask),
        ("activation", "dropout", "outputs"),
    ),
    "variance of a sample": (
        model(),
        patched("moments", unbiased_variance),
        ("activation", "batch_normalization", "outputs"),
    ),
    "mask of another step": (model(), mask_of_another_step, ("mask", "dropout", "noise")),
    "counter not advanced": (model(), counter_stays, ("mask", "dropout", "counter")),
    "mask not reused": (model(), never_kept, ("gradient", "first", "bias")),
    "no 1/B": (
        model(),
        patched("reduce_losses", lambda plain: lambda ls, w=None, *, reduction: ls.sum()),
        ("loss", None, "data_loss"),
    ),
    "no 1/B in the gradient": (
        model(),
        patched("reduce_losses_backward", lambda plain: lambda shape, w=None, *, reduction: np.ones(shape)),
        ("gradient", "last", "bias"),
    ),
    "weights ignored": (model(), weights_ignored, ("loss", None, "data_loss")),
    "half the smoothing": (
        model(loss=SMOOTHED),
        patched(
            "smoothed_labels",
            lambda plain: (
                lambda y, *, label_smoothing, classes: plain(y, label_smoothing=label_smoothing / 2, classes=classes)
            ),
        ),
        ("loss", None, "data_loss"),
    ),
    "L2 with a half": (
        model(kernel_regularizer="l2"),
        patched("l2_penalty", scaled(0.5)),
        ("penalty", "first", "kernel"),
    ),
    "L2 without its 2": (
        model(kernel_regularizer="l2"),
        patched("l2_gradient", scaled(0.5)),
        ("gradient", "first", "kernel"),
    ),
    "factor of L1 in double": (
        model(kernel_regularizer="l1"),
        patched("l1_penalty", scaled(1 + 3e-6)),
        ("penalty", "first", "kernel"),
    ),
    "slope of tanh": (
        model(),
        activated("first", backward=lambda plain: lambda d, y: d * (1 - y)),
        ("gradient", "first", "bias"),
    ),
    "slope of gelu": (
        model(),
        activated("second", backward=lambda plain: lambda d, x: plain(d, x, approximate=True)),
        ("gradient", "second", "bias"),
    ),
    "gradient off by 1e-4": (model(), patched("dense_backward", scaled(1 + 1e-4)), ("gradient", "second", None)),
    "betas swapped": (model(), patched("adam_step", swapped_betas), ("slot", "first", "m/kernel")),
    "epsilon in the root": (model(), patched("adam_step", epsilon_in_the_root), ("weight", None, None)),
    "one step ahead": (
        model(),
        patched("adam_alpha", lambda plain: lambda dtype, *, step, **s: plain(dtype, step=step + 1, **s)),
        ("weight", "first", "kernel"),
    ),
    "no maximum": (model(AMSGRAD), patched("amsgrad_step", without_maximum), ("slot", "first", "v_hat/kernel")),
    "nesterov forgotten": (
        model(SGD),
        patched("sgd_momentum_step", lambda plain: lambda *args, nesterov, **s: plain(*args, nesterov=False, **s)),
        ("weight", "first", "kernel"),
    ),
    "not clipped": (
        model(CLIPPED),
        patched("clip_by_global_norm", lambda plain: lambda g, *, global_clipnorm: g),
        ("slot", "first", "m/kernel"),
    ),
    "decay halved": (
        model(DECAYED),
        patched(
            "weight_decay_step",
            lambda plain: (
                lambda p, *, weight_decay, learning_rate: plain(
                    p, weight_decay=weight_decay / 2, learning_rate=learning_rate
                )
            ),
        ),
        ("weight", "first", "kernel"),
    ),
    "average of the wrong share": (
        model(AVERAGED),
        patched("moving_average_step", lambda plain: lambda a, p, *, momentum: plain(a, p, momentum=0.5)),
        ("slot", "first", "averages/kernel"),
    ),
    "mean of one more": (
        model(ACCUMULATING),
        patched("mean_gradient", lambda plain: lambda g, a, *, steps: plain(g, a, steps=steps + 1)),
        ("weight", "first", "kernel"),
    ),
    "rate of the next step": (
        model(SCHEDULED),
        patched("exponential_decay", lambda plain: lambda step, **s: plain(step + 1, **s)),
        ("slot", None, "learning_rate"),
    ),
    "iteration not counted": (model(), iteration_stays, ("slot", None, "iterations")),
    "momentum of the moving mean": (
        model(),
        patched("moving_average", lambda plain: lambda a, v, *, momentum: plain(a, v, momentum=1 - momentum)),
        ("weight", "batch_normalization", "moving_mean"),
    ),
    "constraint forgotten": (model(kernel_constraint="unit_norm"), constraint_forgotten, ("weight", "first", "kernel")),
    "batches count alike": (model(), every_batch_counts_alike, ("metric", None, "loss")),
}


def batches(rng):
    for rows in (16, 16, 5):
        yield rng.normal(size=(rows, 5)), rng.integers(0, 2, (rows, 1)), rng.gamma(1.0, size=rows)


def first_divergence(checks):
    """The earliest step, then the earliest quantity, of the two of a layer's forward the first layer's."""
    order = {name: i for i, name in enumerate(QUANTITIES)} | {"activation": QUANTITIES.index("pre_activation")}
    found = [check for check in checks if check.verdict == DIVERGENT]
    return min(found, key=lambda check: (check.step, order[check.quantity]), default=None)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named(name, monkeypatch):
    build, plant, expected = FAULTS[name]
    trained, judge = build(), Judge(build())
    checks = []
    for number, batch in enumerate(batches(np.random.default_rng(0))):
        with monkeypatch.context() as patch:
            plant(patch, trained)
            step = judge_steps.step_of(trained, *batch, number=number, batch=number)
        checks += judge.judge(step)
    found = first_divergence(checks)
    assert found is not None, "not seen"
    named = (found.quantity, found.layer, found.name)
    assert all(want in (None, got) for want, got in zip(expected, named, strict=True)), (named, found)


def tampered_gradient(step):
    gradient = step.gradients["last/kernel"]
    place = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
    gradient[place] *= 1 + 3e-5
    return "gradient", "last", "kernel", place


def zeroed_gradient(step):
    step.gradients["first/kernel"][3, 2] = 0
    return "gradient", "first", "kernel", (3, 2)


def tampered_weight(step):
    weight = step.after.weights["last/kernel"]
    weight[1, 0] = np.nextafter(np.nextafter(weight[1, 0], np.float32(9)), np.float32(9))
    return "weight", "last", "kernel", (1, 0)


def shifted_mask(step):
    step.noise["dropout"] = np.roll(step.noise["dropout"], 1, axis=0)
    return "mask", "dropout", "noise", None


def tampered_activation(step):
    step.activations["batch_normalization"][0, 3] += np.float32(1e-4)
    return "activation", "batch_normalization", "outputs", (0, 3)


def a_nan(step):
    step.activations["last"][0, 0] = np.nan
    return "activation", "last", "outputs", (0, 0)


@pytest.mark.parametrize(
    "tamper", [tampered_gradient, zeroed_gradient, tampered_weight, shifted_mask, tampered_activation, a_nan]
)
def test_one_wrong_element_is_named(tamper):
    build = model()
    batch = next(batches(np.random.default_rng(0)))
    step = judge_steps.step_of(build(), *batch)
    *expected, place = tamper(step)
    found = first_divergence(Judge(build()).judge(step))
    assert [found.quantity, found.layer, found.name] == expected
    assert place in (None, found.place)


@pytest.mark.parametrize("layer", ["first", "last"])
def test_a_gradient_that_is_off_by_1e_5_in_one_element_is_seen_where_little_is_summed(layer):
    """The bound of a sum of B products in any order grows with B, and as much more as they cancel."""

    def build():
        utils.clear_session(free_memory=False)
        utils.set_random_seed(7)
        dense = k.layers.Dense
        found = k.Sequential([k.layers.Input((5,)), dense(8, "tanh", name="first"), dense(1, "sigmoid", name="last")])
        found.compile("adam", "binary_crossentropy")
        return found

    step = judge_steps.step_of(build(), np.random.default_rng(1).normal(size=(2, 5)), np.zeros((2, 1)))
    gradient = step.gradients[f"{layer}/kernel"]
    place = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
    gradient[place] *= 1 + 1e-5
    found = first_divergence(Judge(build()).judge(step))
    assert (found.quantity, found.layer, found.name, found.place) == ("gradient", layer, "kernel", place)


def test_rows_are_checked_in_the_order_that_the_seed_predicts(rng):
    x, y = rng.normal(size=(10, 5)).astype("f"), rng.integers(0, 2, (10, 1)).astype("f")
    build = model()
    order = random.shuffle_order(10, 3)
    for seed in (3, None):
        trained, judge = build(), Judge(build(), data=(x, y), batch_size=4, seed=seed)
        for number in range(3):
            rows = order[4 * number : 4 * number + 4]
            step = judge_steps.step_of(trained, x[rows], y[rows], number=number, batch=number)
            verdicts = {check.verdict for check in judge.judge(step) if check.quantity == "batch"}
            assert verdicts == ({BIT_EQUAL} if seed else {BIT_EQUAL, NOT_OBSERVED})  # their order, without a seed
        judge = Judge(build(), data=(x, y), batch_size=4, seed=seed)
        step.x = step.x.copy()
        step.x[0] = x[order[0]] + 1
        step.batch = 0
        assert first_divergence(judge.judge(step)).quantity == "batch"


def test_initial_weights_are_predicted():
    build = model()
    trained = build()
    trained.optimizer.build(trained.arena)
    weights = judge_steps.state_of(trained).weights
    assert {check.verdict for check in judge_start(build(), weights)} == {BIT_EQUAL}
    weights["first/kernel"][0, 0] += 1
    found = first_divergence(judge_start(build(), weights))
    assert (found.layer, found.name, found.place) == ("first", "kernel", (0, 0))


class OwnLayer(k.layers.Layer):
    pass


class OwnLoss(k.losses.Loss):
    def call(self, y_true, y_pred):
        return (y_true - y_pred).mean(axis=-1)


class OwnPenalty(k.regularizers.Regularizer):
    def __call__(self, x):
        return x.sum()


class OwnConstraint(k.constraints.Constraint):
    def __call__(self, w):
        return w * 0.5


class OwnRule(k.optimizers.SGD):
    pass


def doubled(x):
    return x * 2


doubled.gradient = lambda x: 2 + 0 * x
OWN = {
    "layer 'mine', a OwnLayer": lambda: ([OwnLayer(name="mine")], {}),
    "loss 'own_loss', one of your own": lambda: ([], {"loss": OwnLoss(name="own_loss")}),
    "regularizer OwnPenalty, one of your own": lambda: ([k.layers.Dense(2, kernel_regularizer=OwnPenalty())], {}),
    "constraint OwnConstraint, one of your own": lambda: ([k.layers.Dense(2, kernel_constraint=OwnConstraint())], {}),
    "optimizer OwnRule, one of your own": lambda: ([], {"optimizer": OwnRule()}),
    "activation 'doubled', one of your own": lambda: ([k.layers.Dense(2, doubled)], {}),
}


@pytest.mark.parametrize("message", OWN)
def test_what_has_no_bound_is_refused_by_name(message):
    utils.clear_session(free_memory=False)
    layers, settings = OWN[message]()
    own = k.Sequential([k.layers.Input((2,)), *layers, k.layers.Dense(1)])
    own.compile(**{"optimizer": "sgd", "loss": "mse"} | settings)
    with pytest.raises(NotImplementedError, match=f"no error bound for the {message}"):
        Judge(own)


def test_a_metric_of_another_dtype_is_compared_bit_for_bit():
    def build():
        return model(metric=k.metrics.BinaryCrossentropy(dtype="float64"))()

    judge, trained = Judge(build()), build()
    for number, batch in enumerate(batches(np.random.default_rng(0))):
        step = judge_steps.step_of(trained, *batch, number=number, batch=number)
        step.logs["binary_crossentropy"] += 1e-3 * (number == 2)
        (check,) = (check for check in judge.judge(step) if check.name == "binary_crossentropy")
        assert check.verdict == (NOT_OBSERVED if number == 2 else BIT_EQUAL)
    assert "float64" in check.reason


def wide():
    utils.clear_session(free_memory=False)
    utils.set_random_seed(7)
    found = k.Sequential([k.layers.Input((150,)), k.layers.Dense(130, "tanh", name="first"), k.layers.Dense(1)])
    found.compile("adam", "mse")
    return found


@pytest.mark.parametrize("place", [(0, 0), (101, 77), (149, 129)])
@pytest.mark.parametrize("slot", ["m", "v", None])
def test_one_wrong_element_among_many_is_seen_where_only_a_sample_is_looked_at(place, slot):
    rng = np.random.default_rng(0)
    step = judge_steps.step_of(wide(), rng.normal(size=(4, 150)), rng.normal(size=(4, 1)))
    kernel = (step.after.weights if slot is None else step.after.slots[slot])["first/kernel"]
    kernel[place] *= np.float32(1 + 1e-6)
    found = first_divergence(Judge(wide()).judge(step))
    assert (found.layer, found.name) == ("first", "kernel" if slot is None else f"{slot}/kernel")
    assert found.place == place


@pytest.mark.parametrize("order", [None, 1])
def test_many_parameters_are_judged_a_part_at_a_time(order):
    """Unobserved gradients in another order: every slot differs from minidl's, and all are within their bounds."""
    rng = np.random.default_rng(0)
    trained = wide()
    with judge_steps.other_order(order) if order is not None else contextlib.nullcontext():
        step = judge_steps.step_of(trained, rng.normal(size=(9, 150)), rng.normal(size=(9, 1)))
    checks = Judge(wide()).judge(without(step, *NOTHING_INSIDE))
    assert not alarms(checks), alarms(checks)[:3]
    verdicts = {check.name: check.verdict for check in checks if check.layer == "first"}
    assert verdicts["v/kernel"] == verdicts["kernel"] == (BIT_EQUAL if order is None else WITHIN_BOUND)


@pytest.mark.parametrize("rows", [9, 150])
def test_own_numbers_that_are_known_to_be_others_are_computed_in_some_steps_and_all_are_judged(rows, monkeypatch):
    """Of a large model; rows: so many that a radius has a floor, and not."""
    rng, trained, judge, backwards = np.random.default_rng(0), wide(), Judge(wide()), []
    plain = training.backward
    monkeypatch.setattr(training, "backward", lambda *args: (backwards.append(number), plain(*args))[1])
    forwards, own_shares = [], []
    for number in range(21):
        batch = rng.normal(size=(rows, 150)), rng.normal(size=(rows, 1))
        with judge_steps.other_order(number) if number < 19 else contextlib.nullcontext():
            step = judge_steps.step_of(trained, *batch, number=number, batch=number)
        backwards.remove(number)
        gradient = step.gradients["first/kernel"]
        if number == 18:
            step.gradients["first/bias"][0] = np.inf
        gradient[3, 4] *= 1.01 if number == 20 else 1
        found = {(c.quantity, c.layer, c.name): c for c in judge.judge(step) if c.layer is not None}
        changed, pre_activation = found["gradient", "first", "kernel"], found["pre_activation", "first", "outputs"]
        forwards += [number] * (pre_activation.own_share > 0)
        own_shares += [number] * (changed.own_share > 0)
        for check in found.values() if number < 18 else ():
            assert check.verdict in (BIT_EQUAL, WITHIN_BOUND) and 0 <= check.share <= 1, check
        assert pre_activation.verdict == WITHIN_BOUND  # in the last two minidl's own, were it computed
        assert changed.verdict == (DIVERGENT if number == 20 else WITHIN_BOUND)
    assert forwards == [0, 8, 16]
    assert backwards == own_shares and set(backwards) & {*range(8, 21)} == {8, 16, 18}  # 18: not all are finite
    assert changed.place == (3, 4) and changed.got == gradient[3, 4]
    assert changed.expected == changed.elements[0].expected == np.float32(changed.truth)
    assert "1 of 19500 beyond the bound; minidl's own were not computed" in changed.reason


# ------------------------------------------------------------------------------- floors of a radius


def factors(rng, dtype, density, scale):
    """Balls (150, 200), and (200, 120) without and with a radius, and a summand; in part 0, so that floors are."""
    arithmetic = Arithmetic.of(dtype)
    a, b = rng.normal(size=(150, 200)) * scale, rng.normal(size=(200, 120))
    a, b = (np.where(rng.random(one.shape) < density, one, 0).astype(dtype) for one in (a, b))
    a[3], b[:, 5] = 0, 0
    b[1, 5] = 2  # the only term of a column
    spread = Ball(b.astype(arithmetic.wide), np.abs(b).astype(arithmetic.wide) * 1e-6, arithmetic)
    return arithmetic.given(a), (arithmetic.given(b), spread), arithmetic.given(rng.normal(size=120).astype(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("density", [1, 0.3, 0.01])
@pytest.mark.parametrize("scale", [1e-36, 1, 1e20])
def test_a_floor_lies_nowhere_above_the_radius(rng, dtype, density, scale):
    a, bs, bias = factors(rng, dtype, density, scale)
    for b in bs:
        for plus in (None, bias):
            product = a.matmul(b, plus)
            assert isinstance(product, Product)
            size, gamma = np.abs(product.value), product.arithmetic.gamma(product.bounds.n)
            rounding = product.arithmetic.unit * size  # of a truth in the narrow type
            assert (product.bounds.floor(slice(0, None)) + rounding <= product.radius).all()
            assert (product.bounds.left * gamma * size + rounding <= product.radius).all()
            assert product.bounds.left > 1 - 2 / product.bounds.n
            rows, columns = np.array([3, 3, 140, 7]), np.array([5, 6, 5, 0])
            few = product.at(rows, columns)
            np.testing.assert_allclose(few.radius, product.radius[rows, columns], rtol=1e-4)
            np.testing.assert_allclose(few.value, product.value[rows, columns], rtol=1e-9)


def judged_both_ways(got, own, product):
    """The checks of a product by the floor of its radius, and by its radius."""
    whole = Ball(product.value, product.radius, product.arithmetic)
    with np.errstate(all="ignore"):
        return [_compare("gradient", "a", "b", 0, got, own, ball, "") for ball in (product, whole)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("density", [1, 0.3, 0.01])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("many", [1, 20, 3000])
def test_just_within_a_bound_and_just_beyond_it_the_floor_changes_no_verdict(rng, dtype, density, sign, many):
    a, bs, bias = factors(rng, dtype, density, 1)
    for b in bs:
        product = a.matmul(b, bias)
        own = (a.value.astype(dtype) @ b.value.astype(dtype) + bias.value.astype(dtype)).astype(dtype)
        places = {(3, 5), (140, 5), *(divmod(int(i), 120) for i in rng.choice(own.size, many, replace=False))}
        got = own.copy()
        for place in places:  # rounded, by less than a hundredth of the bound of so many terms
            got[place] = product.value[place] + sign * product.radius[place] * 0.99
        by_floor, by_radius = judged_both_ways(got, own, product)
        assert by_floor.verdict == by_radius.verdict == WITHIN_BOUND
        assert 0.9 < by_floor.share <= by_radius.share * 1.001 < 1.001
        assert tuple(by_floor.place) in places
        place = sorted(places)[len(places) // 2]
        got[place] = product.value[place] + sign * product.radius[place] * 1.01
        by_floor, by_radius = judged_both_ways(got, own, product)
        assert by_floor == by_radius
        assert (by_floor.verdict, by_floor.place, len(by_floor.elements)) == (DIVERGENT, place, 1)


@settings(max_examples=40)
@given(seeds, st.none() | seeds, st.integers(-7, -2), st.integers(0, 2**16))
def test_with_floors_everywhere_and_nowhere_the_verdicts_are_the_same(seed, order, exponent, place):
    """Of random models, one element of each gradient and pre-activation changed by 1e-7 to 1e-2 of it."""

    def change(step):
        for tensors in (step.gradients, step.pre_activations):
            for tensor in (tensors or {}).values():
                tensor.reshape(-1)[place % max(tensor.size, 1) :][:1] *= 1 + tensor.dtype.type(10.0**exponent)
        return step

    found = []
    for has_floor in (lambda bounds: bounds.factors[0][0].ndim == bounds.factors[0][1].ndim == 2, lambda bounds: False):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(bounds._Bounds, "has_floor", property(has_floor))
            patched.setattr(bounds, "_EVERY", 2)
            checks = judged(RandomModel(seed), order=order, change=change)
        found.append([(check.quantity, check.layer, check.name, check.verdict) for check in checks])
    assert found[0] == found[1]


def test_a_floor_acquits_no_nan_and_no_infinity(rng):
    a, (b, _), _ = factors(rng, "float32", 1, 1)
    product = a @ b
    own = (a.value @ b.value).astype("float32")
    for wrong in (np.nan, np.inf):
        got = own.copy()
        got[70, 70] = wrong
        by_floor, by_radius = judged_both_ways(got, own, product)
        assert by_floor.verdict == by_radius.verdict == DIVERGENT
        assert by_floor.place == by_radius.place == (70, 70)
    with np.errstate(all="ignore"):
        huge = b.arithmetic.given((b.value * 1e38).astype("float32"))
        assert not isinstance(a @ huge, Product)


def test_of_what_lies_within_a_floor_the_true_error_is_told(rng):
    a, (b, _), bias = factors(rng, "float32", 1, 1)
    product = a.matmul(b, bias)
    own = (a.value + b.value[0, 0] * 0).astype("float32") @ b.value.astype("float32") + bias.value.astype("float32")
    got = (a.value.astype("float32")[:, ::-1] @ b.value.astype("float32")[::-1]) + bias.value.astype("float32")
    found, whole = judged_both_ways(got, own, product)
    assert found.verdict == WITHIN_BOUND and found.share < 0.1
    assert found.got == got[found.place] and found.expected == own[found.place]
    assert found.truth == pytest.approx(product.value[found.place], rel=1e-12)
    assert found.bound == pytest.approx(product.radius[found.place], rel=1e-4)
    assert found.share == pytest.approx(abs(found.got - found.truth) / found.bound)
    assert found.ulps == pytest.approx(abs(found.got - found.truth) / np.spacing(np.float32(abs(found.truth))))
    assert 0.5 * whole.share < found.share <= whole.share * 1.001
    assert abs(found.expected - found.truth) / found.bound <= found.own_share * 1.001 <= whole.own_share * 1.002


@pytest.mark.parametrize("stream", ["torch", "jax", "tensorflow-xla"])
def test_normal_numbers_of_other_backends_have_a_bound(stream):
    with config.using_random_stream(stream):
        own = random.step_normal((64,), 1.0, 0.5, (3, 1), "float32")
    arithmetic = Arithmetic.of("float32")
    ball = noise_bounds.normal(own, 1.0, 0.5, stream, arithmetic)
    assert (ball.share(own + np.float32(1e-7)) <= 1).all() and 0 < ball.radius.max() < 1e-4
    assert (ball.share(own + np.float32(1e-4)) > 1).all()
    assert noise_bounds.normal(own, 1.0, 0.5, "tensorflow", arithmetic) is None


def test_a_zero_slope_may_be_selected_where_the_gradient_is_nan():
    """As torch's hardshrink does for most numbers of an array, of NaN too: 0, where a product would be NaN."""
    arithmetic = Arithmetic.of("float32")
    form = layer_bounds.activation_form(activations.get("hard_shrink"))
    x = arithmetic.given(np.array([0.1, 3.0, np.nan, 3.0], "float32"))
    with np.errstate(all="ignore"):
        d = form.backward(arithmetic.given(np.array([np.nan, np.nan, np.nan, 2.0], "float32")), x, form.value(x))
    assert d.unbounded.tolist() == [True, False, True, False]
    assert np.isnan(d.value[1]) and d.value[3] == 2


def test_a_cube_that_is_flushed_is_within_the_bound_of_a_normalization():
    """Of a variance of 2·10²⁵, 1/√σ²³ is 10⁻³⁸, which JAX and torch flush: d_x lacks a term as large as the others."""
    arithmetic = Arithmetic.of("float32")
    x, d = (arithmetic.given(np.array(a, "float32")[:, None]) for a in ([1e-20, 9.4e12], [0.024, -0.024]))
    mean, variance = layer_bounds.moments(x, (0,))
    found = layer_bounds.normalize_backward(d, x, mean, variance, None, 1e-3, (0,))
    flushed = d.value / np.sqrt(variance.value + 1e-3)
    assert (np.abs(found.value) < 1e-3 * np.abs(flushed)).all() and (found.share(flushed) <= 1).all()
    usual = layer_bounds.normalize_backward(d, x * 1e-12, mean * 1e-12, variance * 1e-24, None, 1e-3, (0,))
    assert (usual.radius < 1e-5 * np.abs(d.value)).all()


def test_where_no_bound_holds_nothing_is_said_to_be_right():
    def build():
        utils.clear_session(free_memory=False)
        utils.set_random_seed(7)
        found = k.Sequential([k.layers.Input((2,)), k.layers.Dense(3, "exponential", name="dense")])
        found.compile("sgd", "mse")
        return found

    x = np.array([[1e3, 1e3], [0.1, 0.2]])
    step = judge_steps.step_of(build(), x, np.ones((2, 3)))
    step.activations["dense"][0] = 1.0  # where e^1000 overflows, or is 0
    found = [check for check in Judge(build()).judge(step) if check.quantity == "activation"]
    assert all(check.verdict in (NOT_OBSERVED, DIVERGENT) for check in found), found


def test_where_a_tape_may_leave_the_range_on_its_way_to_0_there_is_no_bound():
    """silu′(x) = s + x s (1 − s) is 0 far below 0; JAX multiplies d with x first."""
    form, given = layer_bounds.activation_form(activations.get("silu")), Arithmetic.of("float32").given
    d, x = given(np.array([1e9, 1e7], "f")), given(np.array([-1e31, -1e31], "f"))
    found = form.backward(d, x, form.value(x))
    assert found.unbounded.tolist() == [True, False] and found.share(np.array([np.nan, 0.0])).max() <= 1
