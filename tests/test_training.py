"""training.py: the gradient of whole models, a step, and the loops over steps and epochs."""

import numpy as np
import pytest
from helpers import assert_close, assert_same, central_differences

from minidl import batches, config, layers, loops, losses, regularizers, training, utils
from minidl.layers import Activation, ActivityRegularization, Dense, Dropout, Identity, Input, Rescaling
from minidl.models import Sequential
from minidl.optimizers import Adam

EPS = np.finfo(np.float64).eps
BCE = "binary_crossentropy"


@pytest.fixture
def float64():
    config.set_floatx("float64")


def data(rng, samples=10):
    x = rng.normal(size=(samples, 4))
    return x, (x[:, 0] + x[:, 1] > 0) * 1.0


def notebook_model(dropout):
    """4 → 4 (relu, L1) → 4 (relu, L2) → 1 (sigmoid), with dropout after each hidden layer or without."""
    hidden = [
        Dense(4, activation="relu", kernel_regularizer=regularizers.l1(l1=0.1)),
        Dense(4, activation="relu", kernel_regularizer=regularizers.l2(l2=0.1)),
    ]
    if dropout:
        hidden = [hidden[0], Dropout(rate=0.8), hidden[1], Dropout(rate=0.5)]
    model = Sequential([Input(shape=(4,)), *hidden, Dense(1, activation="sigmoid")])
    model.compile(optimizer="adam", loss=BCE, metrics=["accuracy"])
    return model


def small_model(*, optimizer="adam", penalty=None, loss=BCE):
    """4 → 3 (tanh) → 1 (sigmoid), without anything random."""
    model = Sequential([Input((4,)), Dense(3, "tanh", kernel_regularizer=penalty), Dense(1, activation="sigmoid")])
    model.compile(optimizer, loss, metrics=["accuracy"])
    seeded = np.random.default_rng(5)
    model.set_weights([seeded.normal(size=w.shape) for w in model.weights])
    return model


def twins(make):
    """Two models with the same weights."""
    first, second = make(), make()
    second.set_weights(first.get_weights())
    return first, second


def assert_same_weights(first, second):
    assert_same(first.arena.theta, second.arena.theta)


def analytic_gradient(model, x, y, weight):
    y_pred = training.forward(model, x, training=True)
    training.backward(model, y, y_pred, weight)
    training.add_penalty_gradients(model)
    return model.arena.grads.copy()


# The gradient --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dropout", [False, True])
def test_gradient_of_the_notebook_s_models(rng, monkeypatch, float64, dropout, weighted):
    model = notebook_model(dropout)
    x, y, weight = rng.normal(size=(30, 4)), rng.random((30, 1)), rng.uniform(0.2, 3, 30) if weighted else None
    y[:20] = np.round(y[:20])
    theta = model.arena.theta
    theta[:] = rng.normal(size=theta.size)
    theta[np.abs(theta) < 0.01] = 0.5  # away from the corner of |w|
    masks = [rng.random((30, 4)) >= layer.rate for layer in model.layers if isinstance(layer, Dropout)]
    for layer, mask in zip([la for la in model.layers if isinstance(la, Dropout)], masks, strict=True):
        monkeypatch.setattr(layer, "draw_mask", lambda shape, mask=mask: mask)

    def logits():
        training.forward(model, x, training=True)
        return model.layers[-1].pre_activations[:, 0].copy()

    def f():
        return training.total_loss(model, y, training.forward(model, x, training=True), weight)

    h = 1e-5
    gradient = analytic_gradient(model, x, y, weight)
    slopes = []  # between relu's corners a logit is linear in any one parameter, so these differences are exact
    for i, before in enumerate(theta.copy()):
        found = []
        for step in (h, -h):
            theta[i] = before + step
            found.append(logits())
            active = [layer.pre_activations > 0 for layer in model.layers[:-1] if isinstance(layer, Dense)]
            if step == h:
                above = active
        theta[i] = before
        slopes.append((found[0] - found[1]) / (2 * h))
        assert all(np.array_equal(a, b) for a, b in zip(above, active, strict=True))  # no corner within h
    w = np.ones(30) if weight is None else weight
    # ℓ‴ = σ″ ≤ 0.1, so |f‴| ≤ 0.1 · mean(w |slope|³). A logit is a sum of products whose absolute values sum to at
    # most `size`, rounded some 20 times; then come ℓ, the mean over 30 samples, and penalties of 32 terms.
    third_derivative = 0.1 * np.mean(w * np.abs(slopes) ** 3, axis=1)
    absolute = np.abs(x)
    for layer in model.layers:
        if isinstance(layer, Dense):
            absolute = absolute @ np.abs(layer.kernel) + np.abs(layer.bias)
        else:
            absolute = absolute / (1 - layer.rate)
    scale = np.mean(w * (20 * absolute[:, 0] + 40 * (absolute[:, 0] + 1))) + 40 * float(sum(model.losses))
    budget = h**2 / 6 * third_derivative + EPS * scale / h
    assert_close(gradient, central_differences(f, theta, h), atol=budget, what="gradient of the loss")
    assert (np.abs(gradient) > 100 * budget).sum() > 20  # most parameters matter, beyond any doubt
    assert len(model.losses) == 2 and all(penalty > 0 for penalty in model.losses)


def test_gradient_of_a_model_that_does_not_end_in_a_sigmoid(rng, float64):
    """The loss is then computed from clipped probabilities, and backward goes through the last activation."""
    model = Sequential([Input((4,)), Dense(2, activation="linear", bias_initializer="ones")])
    model.compile("adam", BCE)
    x, y = rng.uniform(-1, 1, size=(8, 4)), rng.random((8, 2))
    theta = model.arena.theta
    theta[:8] *= 0.06
    theta[8:] = 0.5

    def f():
        return training.total_loss(model, y, training.forward(model, x, training=True), None)

    p = training.forward(model, x, training=True)
    assert ((p > 0.2) & (p < 0.8)).all()
    # |ℓ‴| ≤ 2/p³ + 2/(1 − p)³ ≤ 2/0.2³ + 2/0.2³ = 500, slopes |x| ≤ 1; means of terms below 2, 40 roundings
    budget = 1e-10 / 6 * 500 + EPS * 80 / 1e-5
    assert_close(analytic_gradient(model, x, y, None), central_differences(f, theta, 1e-5), atol=budget)


def test_penalties_add_to_the_gradient_of_their_own_parameter(rng):
    x, y = data(rng)
    plain, penalized = twins(small_model)
    penalized.layers[0].regularizers["kernel"] = regularizers.L2(0.3)
    arguments = x.astype(np.float32), y[:, None].astype(np.float32), None
    difference = analytic_gradient(penalized, *arguments) - analytic_gradient(plain, *arguments)
    kernel = plain.layers[0].kernel.ravel()
    # the sum rounds numbers below 4 by half an ulp, and so does the difference
    assert_close(difference[:12], kernel * np.float32(0.6), atol=4 * np.finfo(np.float32).eps)
    assert (difference[12:] == 0).all()


# What the loss is computed from --------------------------------------------------------------------------


def one_unit(activation, loss=BCE, kernel=50.0):
    model = Sequential([Input((1,)), Dense(1, activation=activation)])
    model.compile("adam", loss)
    model.set_weights([[[kernel]], [0.0]])
    return model


def test_a_saturated_wrong_sigmoid_has_the_loss_of_its_logit():
    model = one_unit("sigmoid")
    assert model.predict([[1.0]], verbose=0)[0, 0] == 1.0
    assert model.evaluate([[1.0]], [0], verbose=0) == 50.0
    assert model.evaluate([[-2.0]], [1], verbose=0) == 100.0
    before = model.get_weights()[0]
    model.fit([[1.0]], [0], verbose=0)
    assert model.get_weights()[0] < before  # a gradient of 1, not 0


@pytest.mark.parametrize("top", ["linear", "rescaling"])
def test_any_other_end_gives_clipped_probabilities(top):
    if top == "linear":
        model = one_unit("linear", kernel=1.0)
    else:
        model = Sequential([Input((1,)), Dense(1, activation="sigmoid"), Rescaling(1.0)])
        model.compile("adam", BCE)
        model.set_weights([[[50.0]], [0.0]])
    clipped = float(-np.log(np.float32(1) - np.float32(1 - 1e-7)))
    assert model.evaluate([[1.0]], [0], verbose=0) == clipped
    before = model.arena.theta.copy()
    model.fit([[1.0]], [0], verbose=0)
    assert_same(model.arena.theta, before)  # the clip's gradient is 0


@pytest.mark.parametrize("top", [Identity(), Dropout(0.0), ActivityRegularization(), Activation("linear")])
def test_a_sigmoid_under_layers_that_pass_it_on_has_the_loss_of_its_logit(top):
    model = Sequential([Input((1,)), Dense(1, activation="sigmoid"), top])
    model.compile("adam", BCE)
    model.set_weights([[[50.0]], [0.0]])
    assert model.evaluate([[1.0]], [0], verbose=0) == 50.0
    model.fit([[1.0]], [0], verbose=0)
    assert model.get_weights()[0] < 50.0  # a gradient of 1, not 0


def test_from_logits(rng):
    x, y = data(rng)
    with_logits, with_sigmoid = one_unit("linear", losses.BinaryCrossentropy(from_logits=True)), one_unit("sigmoid")
    for model in (with_logits, with_sigmoid):
        model.set_weights([[[0.7]], [0.1]])
    histories = [m.fit(x[:, :1], y, shuffle=False, epochs=3, verbose=0) for m in (with_logits, with_sigmoid)]
    assert histories[0].history == histories[1].history
    assert_same_weights(with_logits, with_sigmoid)


def test_from_logits_of_a_sigmoid_warns_and_takes_the_logits_all_the_same():
    model = one_unit("sigmoid", losses.BinaryCrossentropy(from_logits=True))
    with pytest.warns(UserWarning, match=r"from_logits=True, but the model ends in a sigmoid.*drop one of the two"):
        assert model.evaluate([[1.0]], [0], verbose=0) == 50.0


def test_label_smoothing(rng):
    x, y = data(rng)
    smoothed, by_hand = twins(small_model)
    smoothed.compile("adam", losses.BinaryCrossentropy(label_smoothing=0.2), metrics=[])
    by_hand.compile("adam", BCE, metrics=[])
    labels = y.astype(np.float32) * np.float32(0.8) + np.float32(0.1)
    first = smoothed.fit(x, y, shuffle=False, verbose=0, epochs=2)
    second = by_hand.fit(x, labels, shuffle=False, verbose=0, epochs=2)
    assert first.history == second.history
    assert_same_weights(smoothed, by_hand)


# A step --------------------------------------------------------------------------------------------------


def test_train_on_batch_returns_the_figures_before_the_update(rng):
    x, y = data(rng)
    model = small_model(penalty="l2")
    expected = model.evaluate(x, y, verbose=0)
    got = model.train_on_batch(x, y)
    assert got == expected  # [loss, accuracy]
    again = model.train_on_batch(x, y, return_dict=True)
    assert again["loss"] < expected[0]
    assert model.loss_tracker.count == 10  # of this call alone
    assert model.optimizer.iterations == 2
    assert model.test_on_batch(x, y)[0] < again["loss"]
    assert model.optimizer.iterations == 2
    assert list(model.test_on_batch(x, y, return_dict=True)) == ["accuracy", "loss"]


def test_a_step_is_adam_on_the_gradient(rng):
    x, y = data(rng)
    stepped, by_hand = twins(lambda: small_model(penalty="l2"))
    stepped.train_on_batch(x, y)
    analytic_gradient(by_hand, x.astype(np.float32), y[:, None].astype(np.float32), None)  # the penalty's too
    Adam().apply(by_hand.arena)
    assert_same_weights(stepped, by_hand)


def test_dropout_is_on_in_training_and_off_in_evaluation(rng, monkeypatch):
    x, y = data(rng)
    drawn = []

    def draw(layer, shape, **_):
        drawn.append(shape)
        return np.ones(shape, bool)

    monkeypatch.setattr(layers.Dropout, "draw_mask", draw)
    monkeypatch.setattr(layers.Dropout, "coming_masks", lambda *args, **kwargs: draw(*args, **kwargs)[None])  # fused
    model = notebook_model(dropout=True)
    model.evaluate(x, y, verbose=0)
    model.predict(x, verbose=0)
    model.test_on_batch(x, y)
    assert drawn == []
    model.fit(x, y, batch_size=6, validation_data=(x, y), verbose=0)
    assert drawn == [(6, 4), (6, 4), (4, 4), (4, 4)]


# fit -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_an_epoch_s_loss_is_the_mean_over_samples_plus_penalties(rng, float64, weighted):
    """Batches of 4, 4 and 2: the mean of the batches' means would differ. With η = 0 the weights stay."""
    x, y = data(rng)
    weight = rng.uniform(0.5, 2, 10) if weighted else None
    model = small_model(optimizer=Adam(0.0), penalty="l2")
    history = model.fit(x, y, batch_size=4, sample_weight=weight, verbose=0).history
    p = model.predict(x, verbose=0)[:, 0]
    each = -(y * np.log(p) + (1 - y) * np.log(1 - p)) * (1 if weight is None else weight)
    penalty = float(np.float32(0.01)) * (model.layers[0].kernel ** 2).sum()
    # every loss is off by some 10 roundings of numbers below 10, 1 − p by an absolute ε/2 that p ≥ 1e-3 magnifies
    assert p.min() > 1e-3 and p.max() < 1 - 1e-3
    assert_close(np.float64(history["loss"][0]), each.mean() + penalty, atol=2 * (100 + 1000) * EPS)
    assert_same(np.float64(history["accuracy"][0]), np.mean((p > 0.5) == y))  # metrics are not weighted
    evaluated = model.evaluate(x, y, batch_size=4, sample_weight=weight, verbose=0)
    assert_close(np.float64(evaluated[0]), np.float64(history["loss"][0]), atol=100 * EPS)


def test_every_epoch_s_figures_are_its_own(rng):
    x, y = data(rng)
    whole, in_parts = twins(small_model)
    losses_ = whole.fit(x, y, epochs=3, shuffle=False, verbose=0).history["loss"]
    assert whole.loss_tracker.count == 10
    assert losses_ == [in_parts.train_on_batch(x, y)[0] for _ in range(3)]


def seen_rows(model, x):
    """A list that fills with the row numbers of x in each training batch."""
    seen, plain = [], model.layers[0].forward

    def forward(inputs, *, training):
        if training:
            seen.append([int(np.flatnonzero((x == row).all(axis=1))[0]) for row in inputs])
        return plain(inputs, training=training)

    model.layers[0].forward = forward
    return seen


def test_without_shuffle_the_rows_come_in_order(rng):
    x, y = data(rng)
    model, x = small_model(), x.astype(np.float32)
    seen = seen_rows(model, x)
    model.fit(x, y, batch_size=4, shuffle=False, epochs=2, verbose=0)
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] * 2


def test_with_shuffle_every_row_comes_once_an_epoch(rng):
    x, y = data(rng)
    model, x = small_model(), x.astype(np.float32)
    seen = seen_rows(model, x)
    model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    for epoch in (seen[:3], seen[3:]):
        assert [len(batch) for batch in epoch] == [4, 4, 2]
        assert sorted([row for batch in epoch for row in batch]) == list(range(10))
        assert [row for batch in epoch for row in batch] != list(range(10))


def test_shuffle_keeps_labels_and_weights_with_their_rows(rng):
    """η = 0: the epoch's loss is that of any order, up to the rounding of sums."""
    x, y = data(rng, 50)
    weight = rng.uniform(0.1, 5, 50)
    shuffled, in_order = twins(lambda: small_model(optimizer=Adam(0.0)))
    first = shuffled.fit(x, y, sample_weight=weight, batch_size=7, verbose=0).history["loss"][0]
    second = in_order.fit(x, y, sample_weight=weight, batch_size=7, shuffle=False, verbose=0).history["loss"][0]
    # 50 terms below 50 summed in float32: some 60 roundings of half an ulp, relative to the sum of them
    assert_close(np.float64(first), np.float64(second), atol=0, rtol=60 * np.finfo(np.float32).eps)


def test_default_batch_size_is_32(rng):
    x, y = data(rng, 70)
    model = small_model()
    model.fit(x, y, verbose=0)
    assert model.optimizer.iterations == 3


def test_class_weight_is_the_corresponding_sample_weight(rng):
    x, y = data(rng)
    by_class, by_sample = twins(small_model)
    first = by_class.fit(x, y, class_weight={0: 0.3, 1: 2.5}, shuffle=False, epochs=3, batch_size=4, verbose=0)
    weight = np.where(y == 1, 2.5, 0.3)
    second = by_sample.fit(x, y, sample_weight=weight, shuffle=False, epochs=3, batch_size=4, verbose=0)
    assert first.history == second.history
    assert_same_weights(by_class, by_sample)


def test_a_class_without_a_weight_weighs_1(rng):
    x, y = data(rng)
    by_class, by_sample = twins(small_model)
    assert by_class.train_on_batch(x, y, class_weight={1: 3}) == by_sample.train_on_batch(
        x, y, sample_weight=np.where(y == 1, 3, 1)[:, None]
    )
    assert_same_weights(by_class, by_sample)


def test_class_weight_of_several_outputs_goes_by_the_largest(rng):
    x, y = rng.normal(size=(3, 4)), np.array([[0, 1], [1, 0], [0, 1]])
    by_class, by_sample = twins(lambda: Sequential([Input((4,)), Dense(2, activation="sigmoid")]))
    for model in (by_class, by_sample):
        model.compile("adam", BCE)
    assert by_class.train_on_batch(x, y, class_weight={0: 2, 1: 5}) == by_sample.train_on_batch(x, y, [5, 2, 5])


def test_validation_split_takes_the_tail_before_shuffling(rng):
    x, y = data(rng)
    model, x = small_model(optimizer=Adam(0.0)), x.astype(np.float32)
    weight = np.arange(1, 11)
    seen = seen_rows(model, x)
    history = model.fit(x, y, sample_weight=weight, validation_split=0.25, verbose=0)  # ⌊10 · 0.75⌋ = 7 to train on
    assert sorted([row for batch in seen for row in batch]) == list(range(7))
    loss, accuracy = model.evaluate(x[7:], y[7:], sample_weight=weight[7:], verbose=0)
    assert (history.history["val_loss"], history.history["val_accuracy"]) == ([loss], [accuracy])


def test_class_weight_does_not_weigh_the_validation(rng):
    x, y = data(rng)
    model = small_model(optimizer=Adam(0.0))
    history = model.fit(x, y, class_weight={0: 10, 1: 10}, validation_split=0.3, verbose=0).history
    assert history["val_loss"] == [model.evaluate(x[7:], y[7:], verbose=0)[0]]
    # η = 0 and the same 7 rows in another order: float32 sums of 7 terms, some 20 roundings
    expected = 10 * model.evaluate(x[:7], y[:7], verbose=0)[0]
    assert_close(np.float64(history["loss"][0]), np.float64(expected), atol=0, rtol=20 * np.finfo(np.float32).eps)


def test_validation_data_takes_precedence_over_the_split(rng):
    x, y = data(rng)
    model, x = small_model(optimizer=Adam(0.0)), x.astype(np.float32)
    seen = seen_rows(model, x)
    weight = rng.random(3)
    history = model.fit(x, y, validation_split=0.5, validation_data=(x[:3], y[:3], weight), verbose=0)
    assert sorted([row for batch in seen for row in batch]) == list(range(10))
    assert history.history["val_loss"] == [model.evaluate(x[:3], y[:3], sample_weight=weight, verbose=0)[0]]


def test_validation_is_after_the_epoch_s_steps(rng):
    x, y = data(rng)
    model = small_model()
    history = model.fit(x, y, validation_data=(x, y), verbose=0)
    assert history.history["val_loss"] == [model.evaluate(x, y, verbose=0)[0]]
    assert history.history["loss"] != history.history["val_loss"]


def test_validation_freq_and_batch_size(rng, monkeypatch):
    x, y = data(rng)
    model, sizes = small_model(), []
    plain = training.test_step
    monkeypatch.setattr(loops, "test_step", lambda m, x, *rest: (sizes.append(len(x)), plain(m, x, *rest)))
    history = model.fit(x, y, epochs=5, validation_data=(x, y), validation_freq=2, batch_size=6, verbose=0)
    assert {name: len(values) for name, values in history.history.items()} == {
        "accuracy": 5,
        "loss": 5,
        "val_accuracy": 2,
        "val_loss": 2,
    }
    assert sizes == [6, 4] * 2
    sizes.clear()
    model.fit(x, y, validation_data=(x, y), validation_batch_size=9, verbose=0)
    assert sizes == [9, 1]


def test_initial_epoch_resumes(rng):
    x, y = data(rng)
    whole, in_parts = twins(small_model)
    first = whole.fit(x, y, epochs=4, batch_size=4, shuffle=False, verbose=0)
    in_parts.fit(x, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
    second = in_parts.fit(x, y, epochs=4, initial_epoch=2, batch_size=4, shuffle=False, verbose=0)
    assert second.epoch == [2, 3]
    assert second.history["loss"] == first.history["loss"][2:]
    assert_same_weights(whole, in_parts)


@pytest.mark.parametrize("arguments", [{"epochs": 0}, {"epochs": 2, "initial_epoch": 2}])
def test_no_epochs(rng, arguments):
    x, y = data(rng)
    model = small_model()
    before = model.arena.theta.copy()
    history = model.fit(x, y, verbose=0, **arguments)
    assert (history.history, history.epoch) == ({}, [])
    assert_same(model.arena.theta, before)


@pytest.mark.parametrize("shuffle", [True, "batch"])
def test_two_fits_from_the_same_seed_are_equal_to_the_last_bit(rng, shuffle):
    x, y = data(rng, 40)

    def run():
        utils.set_random_seed(3)
        model = notebook_model(dropout=True)
        history = model.fit(x, y, batch_size=8, epochs=3, shuffle=shuffle, validation_split=0.2, verbose=0)
        return model, history.history

    (first, first_history), (second, second_history) = run(), run()
    assert first_history == second_history
    assert_same_weights(first, second)
    utils.set_random_seed(4)
    assert not np.array_equal(notebook_model(dropout=True).arena.theta[:16], first.arena.theta[:16])


def test_x_and_y_are_left_alone(rng):
    x, y = data(rng)
    x, y = x.astype(np.float32), y.astype(np.float32)[:, None]  # nothing to convert, so nothing is copied
    copies = x.copy(), y.copy()
    x.flags.writeable = y.flags.writeable = False
    notebook_model(dropout=True).fit(x, y, epochs=2, batch_size=4, verbose=0)
    assert_same(x, copies[0])
    assert_same(y, copies[1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("how", ["floatx", "argument"])
def test_one_dtype_throughout(rng, monkeypatch, dtype, how):
    if how == "floatx":
        config.set_floatx(dtype)
        model = notebook_model(dropout=True)
    else:
        model = Sequential([Input((4,)), Dense(4, "relu", dtype=dtype), Dropout(0.5, dtype=dtype)])
        model.add(Dense(1, "sigmoid", dtype=dtype))
        model.compile("adam", BCE, metrics=["accuracy"])
    seen = []
    for layer in model.layers:
        for name in ("forward", "backward", "backward_from_pre_activations"):
            if hasattr(layer, name):
                plain = getattr(layer, name)

                def record(array, plain=plain, **arguments):
                    result = plain(array, **arguments)
                    seen.extend([array.dtype, result.dtype])
                    return result

                monkeypatch.setattr(layer, name, record)
    x, y = data(rng)
    model.fit(x, y, sample_weight=rng.random(10), verbose=0)
    arena, adam = model.arena, model.optimizer
    seen += [arena.theta.dtype, arena.grads.dtype, adam.m.dtype, adam.v.dtype, model.predict(x, verbose=0).dtype]
    assert len(seen) > 10
    assert {np.dtype(d).name for d in seen} == {dtype}
    if how == "floatx":
        assert model.loss_tracker.result().dtype == dtype
        assert all(np.asarray(penalty).dtype == dtype for penalty in model.losses)


# evaluate ------------------------------------------------------------------------------------------------


def test_evaluate_returns_a_list_a_dict_or_a_number(rng):
    x, y = data(rng)
    model = small_model()
    values, named = model.evaluate(x, y, verbose=0), model.evaluate(x, y, return_dict=True, verbose=0)
    assert values == [named["loss"], named["accuracy"]]
    assert list(named) == ["accuracy", "loss"]  # by name, as in Keras
    model.compile("adam", BCE, metrics=[])
    assert model.evaluate(x, y, verbose=0) == named["loss"]


def test_evaluate_changes_nothing(rng):
    x, y = data(rng)
    model = notebook_model(dropout=True)
    before = model.arena.theta.copy()
    states = [la.seed_generator.state.copy() for la in model.layers if isinstance(la, Dropout)]
    model.evaluate(x, y, verbose=0)
    assert_same(model.arena.theta, before)
    assert model.optimizer.iterations == 0
    for layer, state in zip([la for la in model.layers if isinstance(la, Dropout)], states, strict=True):
        assert_same(layer.seed_generator.state, state)


@pytest.mark.parametrize(("samples", "fraction", "train"), [(10, 0.2, 8), (10, 0.25, 7), (3, 0.5, 1), (7, 0.1, 6)])
def test_split_validation(samples, fraction, train):
    x = np.arange(samples)
    (first, *_), (second, *_) = batches.split_validation((x, x, None), fraction)
    assert first.tolist() == list(range(train))
    assert second.tolist() == list(range(train, samples))


def test_it_learns(rng):
    """The logistic model on separable data: every sample right after some epochs."""
    x = rng.normal(size=(200, 4))
    y = x @ [1, -2, 0.5, 0] > 0.1
    model = Sequential([Input((4,)), Dense(1, activation="sigmoid")])
    model.compile(Adam(0.05), BCE, metrics=["accuracy"])
    history = model.fit(x, y, epochs=60, verbose=0).history
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    assert model.evaluate(x, y, verbose=0)[1] >= 0.98
