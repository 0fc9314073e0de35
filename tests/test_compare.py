"""minidl against the recorded Keras runs, without Keras; and planted faults, each of which must be seen."""

import dataclasses

import numpy as np
import pytest

from minidl import ops, random, regularizers, training
from minidl.oracle import notebook, trace
from minidl.oracle.compare import compare, ulps

STEPS = 27  # of the 180 recorded in full: three epochs, each with its partial batch


def short(name, epochs=3):
    """The recorded trace of a model, as if training had ended early."""
    whole = notebook.recorded(name)
    return dataclasses.replace(
        whole,
        settings=whole.settings | {"epochs": epochs},
        history={key: values[:epochs] for key, values in whole.history.items()},
        orders=whole.orders[:epochs],
        masks={key: mask[:STEPS] for key, mask in whole.masks.items()},
        step_theta=whole.step_theta[:STEPS],
        step_m=whole.step_m[:STEPS],
        step_v=whole.step_v[:STEPS],
        epoch_theta=whole.epoch_theta[:epochs],
        epoch_m=whole.epoch_m[:epochs],
        epoch_v=whole.epoch_v[:epochs],
    )


def compared(name, found=None):
    return compare(found or short(name), notebook.MODELS[name], *notebook.data())


def failed(comparison):
    assert comparison.ok == all(check.ok for check in comparison.checks)
    return {check.name for check in comparison.checks if not check.ok}


@pytest.mark.parametrize("name", notebook.MODELS)
def test_the_whole_recorded_run(name):
    """Weights, masks and order bit-equal; each step within its bound; the free run ends where Keras's ends."""
    recorded = notebook.recorded(name)
    comparison = compare(recorded, notebook.MODELS[name], *notebook.data())
    assert failed(comparison) == set(), comparison.checks
    assert "computes what Keras computes" in comparison.verdict
    # The float64 run shows how far one rounding a step can carry a free run; the two float32 runs are nearer.
    assert comparison.drift_abs.max() <= comparison.drift_of_rounding.max()
    assert comparison.history.keys() == recorded.history.keys()
    for key in ("accuracy", "val_accuracy"):
        assert comparison.history[key] == recorded.history[key]
    # A loss is a mean of numbers of its own size: after at most 9 float32 sums of batches, each rounded, and the
    # batches' own bounds (γ of about 40 roundings, see bounds.py), it is within 64 roundings of u = 2⁻²⁴.
    for key in ("loss", "val_loss"):
        ours, theirs = np.array(comparison.history[key]), np.array(recorded.history[key])
        assert (np.abs(ours - theirs) <= 64 * 2.0**-24 * theirs).all()
    if recorded.masks:
        assert [len(masks) for masks in comparison.masks.values()] == [900, 900]


def scaled(function, factor):
    def wrong(*args, **kwargs):
        return function(*args, **kwargs) * np.float32(factor)

    return wrong


def epsilon_inside_the_root(param, grad, m, v, *, step, learning_rate, beta_1, beta_2, epsilon, work=None):
    alpha = ops.adam_alpha(np.float32, step=step, learning_rate=learning_rate, beta_1=beta_1, beta_2=beta_2)
    m += (grad - m) * np.float32(1 - beta_1)
    v += (np.square(grad) - v) * np.float32(1 - beta_2)
    param -= m * alpha / np.sqrt(v + np.float32(epsilon))


def one_step_late(*arrays, step, **kwargs):
    adam_step(*arrays, step=step + 1, **kwargs)


adam_step = ops.adam_step
first_element_zeroed = regularizers.L1.gradient


def l1_without_its_first_element(self, weights):
    gradient = first_element_zeroed(self, weights)
    gradient.flat[0] = 0
    return gradient


STEP_FAULTS = {
    "epsilon inside the root": (ops, "adam_step", epsilon_inside_the_root),
    "bias correction one step late": (ops, "adam_step", one_step_late),
    "L2 gradient without its 2": (ops, "l2_gradient", scaled(ops.l2_gradient, 0.5)),
    "L1 gradient 1e-5 too large": (ops, "l1_gradient", scaled(ops.l1_gradient, 1 + 1e-5)),
    "L1 gradient with one element zero": (regularizers.L1, "gradient", l1_without_its_first_element),
    "cross-entropy gradient 1e-5 too large": (
        ops,
        "binary_crossentropy_from_logits_backward",
        scaled(ops.binary_crossentropy_from_logits_backward, 1 + 1e-5),
    ),
    "relu lets everything back": (ops, "dense_backward", lambda d, kernel: np.abs(d) @ kernel.T),
    "penalties left out": (training, "add_penalty_gradients", lambda model: None),
}


@pytest.mark.parametrize("fault", STEP_FAULTS)
def test_a_fault_in_the_step_is_seen(monkeypatch, fault):
    monkeypatch.setattr(*STEP_FAULTS[fault])
    assert failed(compared("L1 and L2")) == {"steps"}


def moments_as_weighted_means(param, grad, m, v, *, step, learning_rate, beta_1, beta_2, epsilon, work=None):
    alpha = ops.adam_alpha(np.float32, step=step, learning_rate=learning_rate, beta_1=beta_1, beta_2=beta_2)
    m[...] = np.float32(beta_1) * m + np.float32(1 - beta_1) * grad
    v[...] = np.float32(beta_2) * v + np.float32(1 - beta_2) * grad * grad
    param -= alpha * (m / (np.sqrt(v) + np.float32(epsilon)))


def summed_backwards(inputs, kernel, bias=None):
    outputs = np.matmul(inputs[:, ::-1].copy(), kernel[::-1].copy())
    return bias + outputs


EQUIVALENTS = {
    "Adam's moments as weighted means": (ops, "adam_step", moments_as_weighted_means),
    "products summed backwards": (ops, "dense", summed_backwards),
    "cross-entropy through the unsaturated sigmoid": (
        training,
        "loss_inputs",
        lambda model, loss, y_pred: (y_pred, False),
    ),
    "sigmoid without its branches": (ops, "sigmoid", lambda x: 1 / (1 + np.exp(-x))),
}


@pytest.mark.parametrize("rewrite", EQUIVALENTS)
def test_an_equivalent_rewrite_is_not_flagged(monkeypatch, rewrite):
    monkeypatch.setattr(*EQUIVALENTS[rewrite])
    assert failed(compared("L1 and L2")) == set()


def test_a_dropout_backward_without_its_scale_is_seen(monkeypatch):
    monkeypatch.setattr(ops, "dropout_backward", lambda d, mask, *, rate: d * mask)
    assert failed(compared("L1, L2 and dropout")) == {"steps"}


def test_masks_of_the_wrong_step_are_seen(monkeypatch):
    draw = random.dropout_masks
    monkeypatch.setattr(
        random, "dropout_masks", lambda shape, rate, seed, *rest: draw(shape, rate, (seed[0], seed[1] + 1), *rest)
    )
    assert failed(compared("L1, L2 and dropout")) == {"dropout masks"}


def test_masks_of_the_wrong_rate_are_seen(monkeypatch):
    draw = random.dropout_masks
    monkeypatch.setattr(random, "dropout_masks", lambda shape, rate, *rest: draw(shape, 1 - rate + 1e-3, *rest))
    assert "dropout masks" in failed(compared("L1, L2 and dropout"))


def test_another_order_is_seen(monkeypatch):
    monkeypatch.setattr(random, "epoch_order", lambda samples, batch_size, shuffle: np.arange(samples))
    assert failed(compared("L1 and L2")) == {"batch order"}


def test_other_initial_weights_are_seen():
    found = short("L1 and L2")
    found.theta_start = found.theta_start.copy()
    found.theta_start[3] = np.nextafter(found.theta_start[3], np.float32(1))
    assert "initial weights" in failed(compared("L1 and L2", found))


@pytest.mark.parametrize("what", ["step_theta", "step_m", "step_v"])
@pytest.mark.parametrize("change", [lambda x: x * np.float32(1 + 1e-4), lambda x: x * np.float32(np.nan)])
def test_a_wrong_number_of_keras_is_seen(what, change):
    """One element of one step of Keras's, wrong by 1e-4 of itself or not a number."""
    found = short("L1 and L2")
    wrong = getattr(found, what).copy()
    largest = np.abs(wrong[11]).argmax()
    wrong[11, largest] = change(wrong[11, largest])
    setattr(found, what, wrong)
    assert failed(compared("L1 and L2", found)) == {"steps"}


def test_a_trace_of_another_model_is_refused():
    with pytest.raises(ValueError, match="not of this one"):
        compare(short("L1 and L2"), lambda keras: wider(keras), *notebook.data())


def wider(keras):
    model = keras.Sequential([keras.Input(shape=(4,)), keras.layers.Dense(5), keras.layers.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy")
    return model


def test_ulps():
    one = np.float32(1)
    assert ulps(one, np.nextafter(one, np.float32(2))) == 1
    assert ulps(np.float32(-0.0), np.float32(0)) == 0
    assert ulps(np.float32(3), np.float32(3) + 5 * np.spacing(np.float32(3))) == 5


# --------------------------------------------------------------------------------------- trace files


def test_a_saved_trace_is_the_trace(tmp_path):
    before = notebook.recorded("L1, L2 and dropout")
    trace.save(before, tmp_path / "t.npz")
    after = trace.load(tmp_path / "t.npz")
    for field in dataclasses.fields(before):
        a, b = getattr(before, field.name), getattr(after, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        elif field.name == "masks":
            assert a.keys() == b.keys()
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])
        else:
            assert a == b
    assert [path.name for path in tmp_path.iterdir()] == ["t.npz"]


def test_a_trace_says_what_made_it():
    for name in notebook.MODELS:
        versions = notebook.recorded(name).versions
        assert versions["keras"].startswith("3.15") and {"tensorflow", "numpy", "python"} < versions.keys()


@pytest.mark.parametrize("cut", [0, 1, 100, 5000, -1])
def test_a_damaged_trace_is_refused(tmp_path, cut):
    whole = tmp_path / "whole.npz"
    trace.save(short("L1 and L2"), whole)
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(whole.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"damaged\.npz: not a whole trace"):
        trace.load(damaged)


def test_partial_batches_have_no_rows_of_their_own():
    for mask in notebook.recorded("L1, L2 and dropout").masks.values():
        missing = mask == 255
        assert missing[8::9, 11:].all()  # 267 = 8·32 + 11
        assert missing.sum() == 100 * (32 - 11) * 4
