"""Estimators for scikit-learn: MLPClassifier and MLPRegressor, and Keras's wrappers of a model.

    from minidl.sklearn import MLPClassifier
    make_pipeline(StandardScaler(), MLPClassifier(hidden_layer_sizes=(16,), l2=1e-3, random_state=0))

They keep scikit-learn's rules: clone, get_params, Pipeline, GridSearchCV, its checks of X and y. Keras's wrappers are
in minidl.wrappers too. Errors: ImportError, naming the extra, where scikit-learn is not installed.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from minidl import callbacks, checks, config, models, optimizers, regularizers, utils
from minidl.backend import Array
from minidl.callbacks import History
from minidl.layers import Dense, Dropout, Input, Layer
from minidl.models import Sequential
from minidl.trainer import Trainer

try:
    import sklearn
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import OneHotEncoder
    from sklearn.utils import check_array, check_random_state
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        f"minidl.sklearn needs scikit-learn, 1.6 or newer ({error}). Run: pip install 'minidl[sklearn]'"
    ) from error

__all__ = ["MLPClassifier", "MLPRegressor", "SKLearnClassifier", "SKLearnRegressor", "SKLearnTransformer"]

FLOAT_TYPES = [np.float64, np.float32]  # X of either is kept as it is; anything else becomes the first
PREDICT_BATCH_SIZE = 4096  # rows at a time, which only memory depends on

# ------------------------------------------------------------------------------- networks by their arguments


class _MLP(BaseEstimator):
    """What MLPClassifier and MLPRegressor share: the arguments, the network made of them, and its training."""

    def __init__(
        self,
        hidden_layer_sizes: Any = (64,),
        *,
        activation: Any = "relu",
        l1: float = 0.0,
        l2: float = 0.0,
        dropout: float = 0.0,
        optimizer: Any = "adam",
        learning_rate: Any = None,
        batch_size: Any = "auto",
        epochs: int = 100,
        shuffle: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        random_state: Any = None,
        verbose: Any = 0,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.l1 = l1
        self.l2 = l2
        self.dropout = dropout
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.epochs = epochs
        self.shuffle = shuffle
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.verbose = verbose

    def _train(
        self,
        X: Array,
        y: Array,
        sample_weight: Array | None,
        *,
        outputs: int,
        activation: str,
        loss: Any,
        stratify: bool,
    ) -> None:
        """Make the network and train it, all random numbers drawn from random_state."""
        where = type(self).__name__
        seed = self._seed()
        validation, stopping = None, []
        if self.early_stopping:
            fraction = checks.positive_float(where, "validation_fraction", self.validation_fraction)
            arrays = [X, y] if sample_weight is None else [X, y, sample_weight]
            halves = train_test_split(*arrays, test_size=fraction, random_state=seed, stratify=y if stratify else None)
            (X, y), validation = halves[0:4:2], tuple(halves[1::2])
            sample_weight = None if sample_weight is None else halves[4]
            patience = checks.non_negative_int(where, "patience", self.patience)
            stopping = [callbacks.EarlyStopping(monitor="val_loss", patience=patience, restore_best_weights=True)]
        batch_size = min(200, len(X)) if self.batch_size == "auto" else self.batch_size
        batch_size = checks.positive_int(where, "batch_size", batch_size)
        epochs = checks.positive_int(where, "epochs", self.epochs)
        with utils.random_seed_within(seed), config.using_floatx(X.dtype.name):
            model = self._network(X.shape[1], outputs, activation)
            model.compile(optimizer=self._fresh_optimizer(), loss=loss)
            history = model.fit(
                X,
                y,
                sample_weight=sample_weight,
                batch_size=batch_size,
                epochs=epochs,
                shuffle=self.shuffle,
                validation_data=validation,
                callbacks=stopping,
                verbose=self.verbose,
            )
        self.model_, self.history_, self.n_iter_ = model, history.history, len(history.epoch)

    def _seed(self) -> int:
        """random_state itself if it is an integer, else one drawn from it, or from NumPy's global generator."""
        if isinstance(self.random_state, (int, np.integer)):
            check_random_state(self.random_state)
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _network(self, features: int, outputs: int, activation: str) -> Sequential:
        """Dense and Dropout for each hidden layer, then Dense. Layers have names of their own: none is counted up."""
        where = type(self).__name__
        sizes = self.hidden_layer_sizes
        if not isinstance(sizes, (list, tuple, np.ndarray)):
            sizes = [sizes]
        layers: list[Layer] = [Input((features,), name="input")]
        for i, size in enumerate(sizes):
            units = checks.positive_int(where, "a size in hidden_layer_sizes", size)
            penalty = self._penalty()
            layers.append(Dense(units, activation=self.activation, kernel_regularizer=penalty, name=f"hidden_{i}"))
            if self.dropout:
                layers.append(Dropout(self.dropout, name=f"dropout_{i}"))
        layers.append(Dense(outputs, activation=activation, kernel_regularizer=self._penalty(), name="output"))
        return Sequential(layers, name="mlp")

    def _penalty(self) -> Any:
        return regularizers.L1L2(l1=self.l1, l2=self.l2) if self.l1 or self.l2 else None

    def _fresh_optimizer(self) -> optimizers.Optimizer:
        """A new optimizer, as the argument is never changed."""
        found = optimizers.get(self.optimizer)
        config = found.get_config()
        if self.learning_rate is not None:
            config["learning_rate"] = self.learning_rate
        return type(found).from_config(config)

    def _outputs(self, X: Any) -> Array:
        """The network's outputs for X, checked;  (samples, features) -> (samples, outputs)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=FLOAT_TYPES, reset=False)
        starts = range(0, len(X), PREDICT_BATCH_SIZE)
        return np.concatenate([self.model_.predict_on_batch(X[start : start + PREDICT_BATCH_SIZE]) for start in starts])


def _weighted_rows(X: Array, y: Array, sample_weight: Any) -> tuple[Array, Array, Array | None]:
    """The rows that have a weight, and their weights scaled to a mean of 1.

    So a weight of k is as good as k equal rows, to the penalties too. Errors: ValueError for weights that are
    negative, all zero, or not one a row.
    """
    if sample_weight is None:
        return X, y, None
    weights = check_array(sample_weight, ensure_2d=False, dtype=X.dtype, input_name="sample_weight")
    if weights.shape != (len(X),):
        raise ValueError(f"sample_weight must have one weight a sample, shape {(len(X),)}; got {weights.shape}.")
    if (weights < 0).any() or not weights.any():
        raise ValueError("sample_weight: weights must not be negative, and not all zero.")
    kept = weights > 0
    weights = weights[kept]
    return X[kept], y[kept], weights / weights.mean()


class MLPClassifier(ClassifierMixin, _MLP):
    """A multilayer perceptron that tells classes apart, for scikit-learn.

    hidden_layer_sizes: the units of each hidden layer, an int or several. activation: of the hidden layers.
    l1, l2: penalties on all kernels; dropout: the fraction dropped after each hidden layer. optimizer: a name or a
    minidl optimizer; learning_rate: in place of the optimizer's own. batch_size: "auto" is min(200, samples).
    early_stopping: hold out validation_fraction of the rows, stop when their loss has not improved for patience epochs,
    and keep the best weights. random_state: an int s gives what utils.set_random_seed(s) gives; the global generators
    are left as they were. verbose: see Sequential.fit.

    X, float32 or float64, sets the precision; other numbers become float64. y: any labels. sample_weight: k stands for
    k equal rows, 0 for none. Two classes: one sigmoid and binary cross-entropy; more: a softmax and categorical
    cross-entropy.

    Attributes: classes_, model_ (the Sequential), history_ (name -> a value an epoch), n_iter_ (epochs),
    n_features_in_, feature_names_in_. Errors: ValueError for what scikit-learn refuses (NaN, sparse X, one class, …).
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPClassifier:
        """Train on X (samples, features) and labels y (samples,), from new weights."""
        X, y = validate_data(self, X, y, dtype=FLOAT_TYPES)
        check_classification_targets(y)
        X, y, weights = _weighted_rows(X, y, sample_weight)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least two classes; the data have one class, "
                f"{self.classes_[0]!r}."
            )
        binary = len(self.classes_) == 2
        self._train(
            X,
            numbers,
            weights,
            outputs=1 if binary else len(self.classes_),
            activation="sigmoid" if binary else "softmax",
            loss="binary_crossentropy" if binary else "sparse_categorical_crossentropy",
            stratify=True,
        )
        return self

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class, in the order of classes_;  (samples, features) -> (samples, classes)."""
        outputs = self._outputs(X)
        return np.hstack([1 - outputs, outputs]) if outputs.shape[1] == 1 else outputs

    def predict(self, X: Any) -> Array:
        """The likeliest class;  (samples, features) -> (samples,)."""
        likeliest = self.predict_proba(X).argmax(axis=1)
        return self.classes_[likeliest]


class MLPRegressor(RegressorMixin, _MLP):
    """A multilayer perceptron that predicts numbers, for scikit-learn.

    loss: a loss of minidl.losses. The outputs are linear. y: (samples,) or (samples, targets). Scale X, and targets far
    from 1, beforehand (StandardScaler, TransformedTargetRegressor). The other arguments and the attributes: as
    MLPClassifier's, without classes_.
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (64,),
        *,
        loss: Any = "mean_squared_error",
        activation: Any = "relu",
        l1: float = 0.0,
        l2: float = 0.0,
        dropout: float = 0.0,
        optimizer: Any = "adam",
        learning_rate: Any = None,
        batch_size: Any = "auto",
        epochs: int = 100,
        shuffle: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        random_state: Any = None,
        verbose: Any = 0,
    ) -> None:
        super().__init__(
            hidden_layer_sizes,
            activation=activation,
            l1=l1,
            l2=l2,
            dropout=dropout,
            optimizer=optimizer,
            learning_rate=learning_rate,
            batch_size=batch_size,
            epochs=epochs,
            shuffle=shuffle,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            patience=patience,
            random_state=random_state,
            verbose=verbose,
        )
        self.loss = loss

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Train on X (samples, features) and y (samples,) or (samples, targets), from new weights."""
        X, y = validate_data(self, X, y, dtype=FLOAT_TYPES, multi_output=True, y_numeric=True)
        X, y, weights = _weighted_rows(X, y.astype(X.dtype, copy=False), sample_weight)
        self._one_target = y.ndim == 1
        outputs = 1 if self._one_target else y.shape[1]
        self._train(X, y, weights, outputs=outputs, activation="linear", loss=self.loss, stratify=False)
        return self

    def predict(self, X: Any) -> Array:
        """(samples, features) -> (samples,) or (samples, targets), as y was."""
        outputs = self._outputs(X)
        return outputs[:, 0] if self._one_target else outputs


# ------------------------------------------------------------------------------------------ Keras's wrappers


class _Wrapper(BaseEstimator):
    """What Keras's three wrappers share. Source: keras/src/wrappers/sklearn_wrapper.py."""

    def __init__(self, model: Any, warm_start: bool = False, model_kwargs: Any = None, fit_kwargs: Any = None) -> None:
        self.model = model
        self.warm_start = warm_start
        self.model_kwargs = model_kwargs
        self.fit_kwargs = fit_kwargs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = True
        return tags

    def __sklearn_clone__(self) -> Any:
        """A new one of the same arguments, with a copy of the model; Keras's forgets fit_kwargs here."""
        model = copy.deepcopy(self.model) if isinstance(self.model, Trainer) else self.model
        return type(self)(model, self.warm_start, copy.deepcopy(self.model_kwargs), copy.deepcopy(self.fit_kwargs))

    @property
    def epoch_(self) -> int:
        """How many epochs the last fit ran."""
        return len(self.history_.epoch) if hasattr(self, "history_") else 0

    def set_fit_request(self, **kwargs: Any) -> Any:
        """Ask scikit-learn's metadata routing to pass these to fit: name=True, False, None or an alias.

        Errors: RuntimeError where routing is not enabled.
        """
        if not sklearn.get_config().get("enable_metadata_routing", False):
            raise RuntimeError(
                "This method is only available when metadata routing is enabled. You can enable it using "
                "sklearn.set_config(enable_metadata_routing=True)."
            )
        self._metadata_request = self._get_metadata_request()
        for name, alias in kwargs.items():
            self._metadata_request.fit.add_request(param=name, alias=alias)
        return self

    def fit(self, X: Any, y: Any, **kwargs: Any) -> Any:
        """Make the model and train it on X (samples, features) and y (samples,); kwargs go to the model's fit."""
        X, y = validate_data(self, X, y)
        y = self._targets(y)
        model = self._model_for(X, y)
        if not getattr(model, "compiled", False):
            raise RuntimeError("Given model needs to be compiled, and have a loss and an optimizer.")
        self.history_: History = model.fit(X, y, **{**(self.fit_kwargs or {}), **kwargs})
        self.model_ = model
        return self

    def _model_for(self, X: Array, y: Array) -> Any:
        if isinstance(self.model, Trainer):
            return self.model if self.warm_start else models.clone_model(self.model)
        if self.warm_start and hasattr(self, "model_"):
            return self.model_
        return self.model(X=X, y=y, **(self.model_kwargs or {}))

    def _raw_outputs(self, X: Any) -> Array:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        return self.model_.predict(X, verbose=(self.fit_kwargs or {}).get("verbose", "auto"))

    def _targets(self, y: Array) -> Array:
        """y as a column, for the model."""
        self._kind_of_target(y)
        return y[:, None]

    def _kind_of_target(self, y: Array) -> str:
        kind: str = type_of_target(y)
        if kind == "unknown":
            raise ValueError(f"Unknown label type for data: {y!r}")
        return kind

    def predict(self, X: Any) -> Array:
        """The model's outputs;  (samples, features) -> (samples,)."""
        return np.squeeze(self._raw_outputs(X), axis=1)


class SKLearnClassifier(ClassifierMixin, _Wrapper):
    """Keras's wrapper of a model as a classifier for scikit-learn.

    model: a compiled model, of which each fit trains a clone with new weights, or a function (X, y, **model_kwargs)
    that returns one; y comes as one column a class. warm_start=True: go on from the weights of the fit before;
    Keras's says so and does not. fit_kwargs: for the model's fit; those given to fit itself take precedence.
    Attributes: model_, history_ (the History), classes_, n_features_in_. Errors: ValueError for one class alone.
    """

    def _targets(self, y: Array) -> Array:
        kind = self._kind_of_target(y)
        if kind not in ("binary", "multiclass"):
            raise ValueError(f"Only binary and multiclass target types are supported. Target type: {kind}")
        self._encoder = OneHotEncoder(sparse_output=False).fit(y[:, None])
        (self.classes_,) = self._encoder.categories_
        if len(self.classes_) == 1:
            raise ValueError("Classifier can't train when only one class is present.")
        return self._encoder.transform(y[:, None])

    def decision_function(self, X: Any) -> Array:
        """The model's outputs;  (samples, features) -> (samples, classes)."""
        return self._raw_outputs(X)

    def predict(self, X: Any) -> Array:
        """The class of the largest output;  (samples, features) -> (samples,)."""
        outputs = self._raw_outputs(X)
        return self._encoder.inverse_transform(outputs)[:, 0]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True
        return tags


class SKLearnRegressor(RegressorMixin, _Wrapper):
    """Keras's wrapper of a model as a regressor for scikit-learn; arguments: as SKLearnClassifier's."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True
        return tags


class SKLearnTransformer(TransformerMixin, _Wrapper):
    """Keras's wrapper of a model as a transformer for scikit-learn; arguments: as SKLearnClassifier's."""

    def transform(self, X: Any) -> Array:
        """The model's outputs;  (samples, features) -> (samples, outputs)."""
        return self._raw_outputs(X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags
