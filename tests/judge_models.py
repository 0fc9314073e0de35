"""Random models for the judge: every kind of layer, activation, loss, optimizer, regularizer, constraint and metric."""

import numpy as np

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
    "sgd inverse": lambda k: k.optimizers.SGD(k.optimizers.schedules.InverseTimeDecay(0.1, 2, 0.3)),
    "sgd polynomial": lambda k: k.optimizers.SGD(k.optimizers.schedules.PolynomialDecay(0.1, 7, power=1.7)),
    "sgd piecewise": lambda k: k.optimizers.SGD(k.optimizers.schedules.PiecewiseConstantDecay([1], [0.1, 0.03])),
}

REGULARIZERS = [
    None, "l1", "l2", lambda k: k.regularizers.L1L2(0.01, 0.02),
    lambda k: k.regularizers.OrthogonalRegularizer(0.1, "columns"), lambda k: k.regularizers.L1L2(1e-6, 10.0),
]  # fmt: skip
CONSTRAINTS = [
    None, None, "max_norm", "non_neg", "unit_norm",
    lambda k: k.constraints.MaxNorm(0.5), lambda k: k.constraints.MinMaxNorm(0.2, 0.6, 0.7),
]  # fmt: skip


class RandomModel:
    """A model, its data and its settings, all from one seed: build(k) makes it of a module of Keras's names."""

    def __init__(self, seed, **fixed):
        rng = np.random.default_rng(seed)

        def pick(name, choices):
            found = choices[rng.integers(len(choices))]
            return fixed.get(name, found)

        self.seed = seed
        self.loss = pick("loss", list(LOSSES))
        self.optimizer = pick("optimizer", list(OPTIMIZERS))
        self.features = pick("features", [1, 2, 5, 16])
        self.widths = [2 * int(rng.integers(1, 9)) for _ in range(int(rng.integers(0, 3)))]
        self.activations = [pick("activation", ACTIVATIONS) for _ in self.widths]
        self.extras = [pick("layer", [None, *LAYERS]) for _ in self.widths]
        self.regularizers = [tuple(pick("regularizer", REGULARIZERS) for _ in range(2)) for _ in self.widths]
        self.constraints = [pick("constraint", CONSTRAINTS) for _ in self.widths]
        self.activity = [pick("activity", [None, None, None, "l1", "l2"]) for _ in self.widths]
        self.rows = pick("rows", [1, 2, 7, 32])
        self.scale = pick("scale", [0.0, 1e-20, 1e-3, 1.0, 1.0, 1.0, 30.0, 1e4])
        self.weighted = pick("weighted", [False, True])
        self.steps = 3
        if "activation" in fixed and not self.widths:
            self.widths, self.activations, self.extras = [6], [fixed["activation"]], [None]
            self.regularizers, self.constraints, self.activity = [(None, None)], [None], [None]
        if "layer" in fixed and not self.widths:
            self.widths, self.activations, self.extras = [6], ["tanh"], [fixed["layer"]]
            self.regularizers, self.constraints, self.activity = [(None, None)], [None], [None]
        _, activation, self.units, labels = LOSSES[self.loss]
        self.data = [
            (
                rng.normal(size=(rows, self.features)) * self.scale,
                labels(rng, rows, self.units),
                rng.gamma(1.0, size=rows) if self.weighted else None,
            )
            for rows in [self.rows] * (self.steps - 1) + [max(1, self.rows // 2)]
        ]
        of_binary = labels in (_binary, _one_hot) and activation in ("sigmoid", "softmax", "hard_sigmoid")
        known = [] if labels is _classes else METRICS + BINARY_METRICS * of_binary
        self.metrics = list(rng.choice(len(known), min(3, len(known)), replace=False))
        self.metrics = fixed.get("metrics", [known[i] for i in self.metrics])

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
        layers.append(k.layers.Dense(units, activation, name="last"))
        model = k.Sequential(layers)
        names = ["mean_absolute_error"] if not self.loss.startswith("scce") else []
        more = [make(k.metrics, f"more_{i}") for i, make in enumerate(self.metrics)]
        weighted = [make(k.metrics, f"weighted_{i}") for i, make in enumerate(self.metrics)]
        model.compile(
            OPTIMIZERS[self.optimizer](k), loss(k), metrics=["accuracy", *names, *more],
            weighted_metrics=["mean_squared_error", *weighted] if names else [],
        )  # fmt: skip
        return model

    def __repr__(self):
        return f"RandomModel({self.seed}): {vars(self) | {'data': ...}}"
