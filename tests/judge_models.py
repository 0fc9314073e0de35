"""Random models for the judge: every kind of layer, activation, loss, optimizer, regularizer, constraint and metric.

As a program, `python tests/judge_models.py 1000`, it trains so many with the Keras that KERAS_BACKEND selects, and ends
with an error and the smallest model that it finds if the oracle sees a fault in one.
"""

import os
import subprocess
import sys
import warnings

import numpy as np
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

ACTIVATIONS = [
    "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu",
    "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink",
    "softmax", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "sparsemax", "squareplus", "tanh",
    "tanh_shrink",
]  # fmt: skip

# name: what a module `k` of Keras's names makes of it, for inputs (B, n) with n even
LAYERS = {
    "dropout": lambda k: k.layers.Dropout(0.3),
    "alpha dropout": lambda k: k.layers.AlphaDropout(0.3),
    "gaussian noise": lambda k: k.layers.GaussianNoise(0.3),
    "gaussian dropout": lambda k: k.layers.GaussianDropout(0.3),
    "batch normalization": lambda k: k.layers.BatchNormalization(momentum=0.7, gamma_regularizer="l1"),
    "batch normalization bare": lambda k: k.layers.BatchNormalization(scale=False, center=False),
    "batch normalization frozen": lambda k: k.layers.BatchNormalization(trainable=False),
    "batch renormalization": lambda k: k.layers.BatchNormalization(
        momentum=0.7, renorm=True, renorm_clipping={"rmin": 0.4, "rmax": 2.5, "dmax": 1.5}, renorm_momentum=0.8
    ),
    "batch renormalization bare": lambda k: k.layers.BatchNormalization(renorm=True, scale=False),
    "layer normalization": lambda k: k.layers.LayerNormalization(),
    "group normalization": lambda k: k.layers.GroupNormalization(2),
    "rms normalization": lambda k: k.layers.RMSNormalization(),
    "unit normalization": lambda k: k.layers.UnitNormalization(),
    "prelu": lambda k: k.layers.PReLU("ones", alpha_regularizer="l2"),
    "relu all": lambda k: k.layers.ReLU(max_value=1.3, negative_slope=0.1, threshold=0.2),
    "leaky relu": lambda k: k.layers.LeakyReLU(0.2),
    "elu": lambda k: k.layers.ELU(0.7),
    "softmax": lambda k: k.layers.Softmax(),
    "activation": lambda k: k.layers.Activation("tanh"),
    "rescaling": lambda k: k.layers.Rescaling(0.1, -0.3),
    "normalization": lambda k: k.layers.Normalization(mean=0.1, variance=2.3),
    "identity": lambda k: k.layers.Identity(),
    "reshape": lambda k: k.layers.Reshape((2, -1)),
    "flatten": lambda k: k.layers.Flatten(),
    "activity": lambda k: k.layers.ActivityRegularization(l1=0.01, l2=0.02),
    "frozen dense": lambda k: k.layers.Dense(6, "tanh", trainable=False),
}

# name: (loss, activation of the last layer, units, labels of (rng, rows, units))
_probabilities = lambda rng, b, u: rng.dirichlet(np.ones(u), size=b)  # noqa: E731
_binary = lambda rng, b, u: rng.integers(0, 2, (b, u))  # noqa: E731
_numbers = lambda rng, b, u: rng.normal(size=(b, u))  # noqa: E731
_positive = lambda rng, b, u: rng.gamma(1.0, size=(b, u))  # noqa: E731
_classes = lambda rng, b, u: rng.integers(0, u, b)  # noqa: E731
_one_hot = lambda rng, b, u: np.eye(u)[rng.integers(0, u, b)]  # noqa: E731
LOSSES = {
    "bce sigmoid": (lambda k: k.losses.BinaryCrossentropy(label_smoothing=0.1), "sigmoid", 1, _binary),
    "bce logits": (lambda k: k.losses.BinaryCrossentropy(from_logits=True), None, 3, _binary),
    "bce probabilities": (lambda k: k.losses.BinaryCrossentropy(), "hard_sigmoid", 2, _binary),
    "focal sigmoid": (lambda k: k.losses.BinaryFocalCrossentropy(True), "sigmoid", 1, _binary),
    "focal probabilities": (lambda k: k.losses.BinaryFocalCrossentropy(gamma=1.5), "hard_sigmoid", 2, _binary),
    "cce softmax": (lambda k: k.losses.CategoricalCrossentropy(label_smoothing=0.1), "softmax", 4, _one_hot),
    "cce logits": (lambda k: k.losses.CategoricalCrossentropy(from_logits=True), None, 4, _probabilities),
    "cce probabilities": (lambda k: k.losses.CategoricalCrossentropy(), "softplus", 4, _one_hot),
    "cfl softmax": (lambda k: k.losses.CategoricalFocalCrossentropy(), "softmax", 3, _one_hot),
    "cfl logits": (lambda k: k.losses.CategoricalFocalCrossentropy(from_logits=True), None, 3, _one_hot),
    "scce softmax": (lambda k: k.losses.SparseCategoricalCrossentropy(), "softmax", 4, _classes),
    "scce logits": (lambda k: k.losses.SparseCategoricalCrossentropy(from_logits=True), None, 4, _classes),
    "scce ignore": (lambda k: k.losses.SparseCategoricalCrossentropy(ignore_class=1), "softmax", 4, _classes),
    "mse": (lambda k: k.losses.MeanSquaredError(), None, 2, _numbers),
    "mse sum": (lambda k: k.losses.MeanSquaredError(reduction="sum"), None, 1, _numbers),
    "mse weighted mean": (lambda k: k.losses.MeanSquaredError(reduction="mean_with_sample_weight"), None, 1, _numbers),
    "mae": (lambda k: k.losses.MeanAbsoluteError(), None, 2, _numbers),
    "mape": (lambda k: k.losses.MeanAbsolutePercentageError(), None, 2, _numbers),
    "msle": (lambda k: k.losses.MeanSquaredLogarithmicError(), "softplus", 1, _positive),
    "huber": (lambda k: k.losses.Huber(0.7), None, 2, _numbers),
    "log cosh": (lambda k: k.losses.LogCosh(), None, 2, _numbers),
    "hinge": (lambda k: k.losses.Hinge(), "tanh", 1, _binary),
    "squared hinge": (lambda k: k.losses.SquaredHinge(), "tanh", 1, _binary),
    "categorical hinge": (lambda k: k.losses.CategoricalHinge(), None, 3, _one_hot),
    "cosine": (lambda k: k.losses.CosineSimilarity(), None, 3, _numbers),
    "kld": (lambda k: k.losses.KLDivergence(), "softmax", 3, _probabilities),
    "poisson": (lambda k: k.losses.Poisson(), "softplus", 1, _positive),
}

# Metrics of labels 0 and 1 and outputs in [0, 1], and of any labels of the outputs' shape.
BINARY_METRICS = [
    lambda m, name: m.Precision(name=name), lambda m, name: m.Recall([0.2, 0.5, 0.7], name=name),
    lambda m, name: m.TruePositives(name=name), lambda m, name: m.FalsePositives([0.1, 0.9], name=name),
    lambda m, name: m.TrueNegatives(name=name), lambda m, name: m.FalseNegatives(name=name),
    lambda m, name: m.AUC(name=name), lambda m, name: m.AUC(50, "PR", name=name),
    lambda m, name: m.AUC(curve="PR", summation_method="minoring", name=name),
    lambda m, name: m.AUC(30, curve="PRGAIN", summation_method="majoring", name=name),
    lambda m, name: m.AUC(thresholds=[0.1, 0.3, 0.31], name=name),
    lambda m, name: m.SensitivityAtSpecificity(0.6, name=name), lambda m, name: m.RecallAtPrecision(0.4, name=name),
    lambda m, name: m.SpecificityAtSensitivity(0.4, 20, name=name), lambda m, name: m.PrecisionAtRecall(0.5, name=name),
    lambda m, name: m.FBetaScore("macro", 2.0, 0.5, name=name), lambda m, name: m.F1Score("weighted", name=name),
    lambda m, name: m.F1Score("micro", 0.4, name=name), lambda m, name: m.BinaryCrossentropy(name=name),
]  # fmt: skip
METRICS = [
    lambda m, name: m.R2Score(name=name), lambda m, name: m.R2Score("variance_weighted_average", name=name),
    lambda m, name: m.RootMeanSquaredError(name=name), lambda m, name: m.CosineSimilarity(name=name),
    lambda m, name: m.ConcordanceCorrelation(name=name), lambda m, name: m.LogCoshError(name=name),
    lambda m, name: m.MeanSquaredLogarithmicError(name=name), lambda m, name: m.CategoricalAccuracy(name=name),
    lambda m, name: m.TopKCategoricalAccuracy(2, name=name),
]  # fmt: skip

OPTIMIZERS = {
    "sgd": lambda k: k.optimizers.SGD(0.1),
    "momentum": lambda k: k.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.5),
    "nesterov": lambda k: k.optimizers.SGD(0.1, momentum=0.9, nesterov=True, clipvalue=0.01),
    "adam": lambda k: k.optimizers.Adam(),
    "amsgrad": lambda k: k.optimizers.Adam(0.01, amsgrad=True, clipnorm=0.1),
    "adam scaled": lambda k: k.optimizers.Adam(loss_scale_factor=3.0, use_ema=True, ema_momentum=0.9),
    "adam accumulating": lambda k: k.optimizers.Adam(gradient_accumulation_steps=2),
    "adamw": lambda k: k.optimizers.AdamW(k.optimizers.schedules.ExponentialDecay(0.01, 3, 0.9)),
    "adamax": lambda k: k.optimizers.Adamax(0.01),
    "nadam": lambda k: k.optimizers.Nadam(0.01),
    "rmsprop": lambda k: k.optimizers.RMSprop(),
    "rmsprop all": lambda k: k.optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "adagrad": lambda k: k.optimizers.Adagrad(0.1, use_ema=True, ema_overwrite_frequency=2),
    "adadelta": lambda k: k.optimizers.Adadelta(1.0),
    "sgd cosine": lambda k: k.optimizers.SGD(k.optimizers.schedules.CosineDecay(0.1, 5, 0.1), weight_decay=0.01),
    "sgd restarts": lambda k: k.optimizers.SGD(k.optimizers.schedules.CosineDecayRestarts(0.1, 2, 1.5, 0.8, 0.1)),
    "sgd periods": lambda k: k.optimizers.SGD(k.optimizers.schedules.CosineDecayRestarts(0.1, 2, 1.0)),
    "sgd inverse": lambda k: k.optimizers.SGD(k.optimizers.schedules.InverseTimeDecay(0.1, 2, 0.3)),
    "sgd polynomial": lambda k: k.optimizers.SGD(k.optimizers.schedules.PolynomialDecay(0.1, 7, power=1.7)),
    "sgd piecewise": lambda k: k.optimizers.SGD(k.optimizers.schedules.PiecewiseConstantDecay([1], [0.1, 0.03])),
}

ORTHOGONAL = lambda k: k.regularizers.OrthogonalRegularizer(0.1, "columns")  # noqa: E731  of two columns at least
REGULARIZERS = [
    None, "l1", "l2", lambda k: k.regularizers.L1L2(0.01, 0.02),
    ORTHOGONAL, lambda k: k.regularizers.L1L2(1e-6, 10.0),
]  # fmt: skip
CONSTRAINTS = [
    None, None, "max_norm", "non_neg", "unit_norm",
    lambda k: k.constraints.MaxNorm(0.5), lambda k: k.constraints.MinMaxNorm(0.2, 0.6, 0.7),
]  # fmt: skip


PART = 100
EVEN = ("group normalization", "reshape")  # layers that want an even width
WIDTHS = range(1, 257)


class RandomModel:
    """A model, its data and its settings: build(k) makes it of a module of Keras's names.

    seed: of the data, and of all that choose does not say. choose: (name, choices) -> one of them. fixed: choices made.
    wide: of widths up to 256 and batches up to 64; else small ones.
    """

    def __init__(self, seed, choose=None, *, wide=False, **fixed):
        rng = np.random.default_rng(seed)

        def pick(name, choices):
            if name in fixed:
                return fixed[name]
            if choose is not None:
                return choose(name, choices)
            if choices is WIDTHS:  # as many narrow ones as wide ones
                return int(2 ** rng.uniform(0, 8))
            return choices[rng.integers(len(choices))]

        self.seed = seed
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        on_tensorflow = backend == "tensorflow"
        # on torch "xla" is torch.compile, which takes 20 s a model, and there is no graph
        self.mode = pick("mode", [*["eager"] * 9, "xla"] if backend == "torch" else ["graph", "eager", "xla"])
        self.loss = pick("loss", list(LOSSES))
        self.optimizer = pick("optimizer", list(OPTIMIZERS))
        self.rate = pick("rate", [None, 1e-5, 1e-3, 0.1, 1.0])
        self.features = pick("width", WIDTHS) if wide else pick("features", [1, 2, 5, 16])
        depth = pick("depth", [0, 1, 2])
        if {"activation", "layer"} & set(fixed):
            depth = max(depth, 1)
        self.widths = [pick("width", WIDTHS if wide else range(1, 17)) for _ in range(depth)]
        self.activations = [pick("activation", ACTIVATIONS) for _ in self.widths]
        self.extras = [pick("layer", [None, *LAYERS]) for _ in self.widths]
        self.widths = [w + w % 2 if e in EVEN else w for w, e in zip(self.widths, self.extras, strict=True)]
        if self.mode == "xla" and backend == "torch":  # which recomputes what has changed: see docs/cases.md
            self.extras = [one and one.replace("batch renormalization", "batch normalization") for one in self.extras]
        if self.mode == "xla" or not on_tensorflow:  # where a norm of 0 has NaN for a gradient: see docs/cases.md
            pairs = zip(self.activations, self.extras, strict=True)
            self.activations = ["linear" if extra == "unit normalization" else one for one, extra in pairs]
        choices = [[one for one in REGULARIZERS if one is not ORTHOGONAL or width > 1] for width in self.widths]
        self.regularizers = [tuple(pick("regularizer", of_width) for _ in range(2)) for of_width in choices]
        self.constraints = [pick("constraint", CONSTRAINTS) for _ in self.widths]
        if self.mode == "xla" or not on_tensorflow:  # and of a column of zeros: see cases/orthogonal_under_xla.py
            pairs = zip(self.regularizers, self.constraints, strict=True)
            self.constraints = [None if ORTHOGONAL in of and c == "non_neg" else c for of, c in pairs]
        self.activity = [pick("activity", [None, None, None, "l1", "l2"]) for _ in self.widths]
        if backend == "jax" and self.mode == "eager":  # which leaves some penalties out: see docs/cases.md
            self.activity = [None for _ in self.widths]
            self.extras = [None if extra == "activity" else extra for extra in self.extras]
        self.rows = pick("rows", [1, 2, 7, 32, 64] if wide else [1, 2, 7, 32])
        self.last_rows = pick("last_rows", range(1, self.rows + 1))
        self.scale = pick("scale", [0.0, 1e-20, 1e-3, 1.0, 1.0, 1.0, 30.0, 1e4])  # zeros, and what saturates
        self.weighted = pick("weighted", [False, True, "zero"])
        self.steps = 3
        _, activation, self.units, labels = LOSSES[self.loss]
        of_binary = labels in (_binary, _one_hot) and activation in ("sigmoid", "softmax", "hard_sigmoid")
        metrics = METRICS if self.units > 1 else METRICS[:-1]  # torch finds no top 2 of one
        known = [] if labels is _classes else metrics + BINARY_METRICS * of_binary
        self.metrics = [pick("metric", known) for _ in range(3 if known else 0)]

    @property
    def data(self):
        """(x, y, weights) of each step."""
        rng, labels = np.random.default_rng([self.seed, 1]), LOSSES[self.loss][3]
        found = []
        for rows in [self.rows] * (self.steps - 1) + [self.last_rows]:
            x, y = rng.normal(size=(rows, self.features)) * self.scale, labels(rng, rows, self.units)
            weights = rng.gamma(1.0, size=rows) * (0 if self.weighted == "zero" and rng.integers(2) else 1)
            found.append((x, y, weights if self.weighted else None))
        return found

    def build(self, k):
        def made(what):
            return what(k) if callable(what) else what

        layers = [k.layers.Input((self.features,))]
        rows = zip(self.widths, self.activations, self.extras, self.regularizers, self.constraints, self.activity,
                   strict=True)  # fmt: skip
        for i, (width, activation, extra, regularizers, constraint, activity) in enumerate(rows):
            kernel, bias = (made(one) for one in regularizers)
            layers.append(
                k.layers.Dense(
                    width, activation, kernel_regularizer=kernel, bias_initializer="random_normal",
                    bias_regularizer=bias if isinstance(bias, str) or bias is None else "l2",
                    kernel_constraint=made(constraint), activity_regularizer=activity,
                    name=f"hidden_{i}",
                )
            )  # fmt: skip
            if extra is not None:
                layers.append(LAYERS[extra](k))
            if extra == "reshape":
                layers += [k.layers.Dense(3, name=f"inner_{i}"), k.layers.Flatten()]
        loss, activation, units, _ = LOSSES[self.loss]
        # Of outputs that are all 0 JAX and torch make a cosine's gradient NaN: see docs/cases.md.
        bias = "random_normal" if self.loss == "cosine" else "zeros"
        layers.append(k.layers.Dense(units, activation, bias_initializer=bias, name="last"))
        model = k.Sequential(layers)
        names = ["mean_absolute_error"] if not self.loss.startswith("scce") else []
        more = [make(k.metrics, f"more_{i}") for i, make in enumerate(self.metrics)]
        weighted = [make(k.metrics, f"weighted_{i}") for i, make in enumerate(self.metrics)]
        optimizer = OPTIMIZERS[self.optimizer](k)
        if self.rate is not None and not self.optimizer.startswith(("sgd ", "adamw")):  # these have a schedule
            optimizer.learning_rate = self.rate
        model.compile(
            optimizer, loss(k), metrics=["accuracy", *names, *more],
            weighted_metrics=["mean_squared_error", *weighted] if names else [],
        )  # fmt: skip
        return model

    def __repr__(self):
        return f"RandomModel({vars(self)})"


@st.composite
def random_models(draw):
    """Every choice is drawn by itself, so that a model that fails is made smaller choice by choice."""
    seed = draw(st.integers(0, 2**32 - 1))
    return RandomModel(seed, lambda name, choices: draw(st.sampled_from(choices)), wide=True)


def judged_by_the_oracle(keras, case):
    """The report of Keras's own fit of a case, in its mode."""
    from minidl import oracle

    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(case.seed % 2**31)
    model = case.build(keras)
    model.run_eagerly, model.jit_compile = case.mode == "eager", case.mode == "xla"
    if keras.backend.backend() == "torch" and case.mode == "xla":
        import torch

        torch._dynamo.reset()  # it gives up on a function that it has compiled 8 times
    x, y, weights = (None if parts[0] is None else np.concatenate(parts) for parts in zip(*case.data, strict=True))
    return oracle.check(
        model, x.astype("float32"), y, sample_weight=weights, batch_size=case.rows, shuffle=False, initial_weights=True,
        seed=case.seed % 2**31,
    )  # fmt: skip


def no_false_alarm(keras, count, progress=lambda done: None, number=0):
    """Train count random models, others of each number.

    Errors: AssertionError with the smallest model found that the oracle faults.
    """
    done = 0

    @seeded(number)
    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
    @given(random_models())
    def right(case):
        nonlocal done
        try:
            report = judged_by_the_oracle(keras, case)
        except RuntimeError as error:  # on torch the cross-entropy of an output that is NaN stops the training
            if "all elements of input should be between 0 and 1" not in str(error):
                raise
            reject()
        done += 1
        progress(done)
        first = report.first_divergence
        assert first is None, f"{case}: step {first.step}, {first.explanation}"

    right()


def main():
    """So many models, PART in a process, since the backends keep 10 to 60 MB of each; or one part, by its number."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    if len(sys.argv) > 2:
        import keras

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            no_false_alarm(keras, count, lambda done: print(f"\r{done}", end="", flush=True), int(sys.argv[2]))
        return
    for number, first in enumerate(range(0, count, PART)):
        part = min(PART, count - first)
        print(f"models {first + 1} to {first + part} of {count}", flush=True)
        found = subprocess.run([sys.executable, __file__, str(part), str(number)])
        if found.returncode:
            sys.exit(f"python {__file__} {part} {number} ended with {found.returncode}")
        print()
    print(f"no false alarm in {count} random models on {os.environ.get('KERAS_BACKEND', 'tensorflow')}")


if __name__ == "__main__":
    main()
