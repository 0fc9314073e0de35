"""Every loss and metric with its options, and labels and predictions for it: for live Keras and central differences."""

from dataclasses import dataclass, field

import numpy as np

REDUCTIONS = ("sum_over_batch_size", "mean", "mean_with_sample_weight", "sum", "none", None)


@dataclass(frozen=True)
class LossCase:
    name: str
    kind: str = "real"  # what the labels are
    options: dict = field(default_factory=dict)

    def __str__(self):
        return "-".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])

    def data(self, dtype, batch=6, units=4):
        """y_true, y_pred away from kinks and clips, weights: exact in float32."""
        rng = np.random.default_rng(sum(map(ord, str(self))))
        predicted = rng.uniform(0.05, 0.95, (batch, units))
        if self.options.get("from_logits") or self.kind in ("real", "sign"):
            predicted = rng.normal(size=(batch, units)) * 2
        weights = rng.uniform(0.5, 2, batch)
        arrays = (labels_of(self.kind, rng, batch, units), predicted, weights)
        return tuple(a if a.dtype.kind == "i" else a.astype("float32").astype(dtype) for a in arrays)


def labels_of(kind, rng, batch, units):
    if kind == "sparse":
        return rng.integers(0, units, batch)
    if kind == "classes":
        return np.eye(units)[rng.integers(0, units, batch)]
    if kind == "soft classes":
        y = rng.random((batch, units))
        return y / y.sum(axis=-1, keepdims=True)
    if kind == "sign":
        return rng.choice([-1.0, 1.0], (batch, units))
    if kind == "binary":
        return rng.integers(0, 2, (batch, units)).astype(float)
    return {
        "chance": rng.random,
        "positive": lambda s: rng.gamma(2.0, size=s),
        "real": lambda s: rng.normal(size=s) * 2,
    }[kind]((batch, units))


LOSSES = [
    *(LossCase("BinaryCrossentropy", kind, {"from_logits": logits, "label_smoothing": s, "axis": axis})
      for kind in ("binary", "chance") for logits in (False, True) for s in (0.0, 0.2) for axis in (-1, 0)),
    *(LossCase("BinaryFocalCrossentropy", kind, {"from_logits": logits, "apply_class_balancing": balanced, **more})
      for kind in ("binary", "chance") for logits in (False, True) for balanced in (False, True)
      for more in ({}, {"gamma": 0.7, "alpha": 0.4, "label_smoothing": 0.1})),
    *(LossCase("CategoricalCrossentropy", kind, {"from_logits": logits, "label_smoothing": s, "axis": axis})
      for kind in ("classes", "soft classes") for logits in (False, True) for s in (0.0, 0.2) for axis in (-1, 1)),
    *(LossCase("SparseCategoricalCrossentropy", "sparse", {"from_logits": logits}) for logits in (False, True)),
    *(LossCase("SparseCategoricalCrossentropy", "sparse", {"from_logits": logits, **more}) for logits in (False, True)
      for more in ({"ignore_class": 2}, {"axis": 1})),
    *(LossCase("CategoricalFocalCrossentropy", kind, {"from_logits": logits, **more}) for logits in (False, True)
      for kind, more in (("classes", {}), ("soft classes", {"alpha": [0.1, 0.2, 0.3, 0.4], "gamma": 0.7}),
                         ("classes", {"label_smoothing": 0.1, "axis": 1}))),
    LossCase("CategoricalHinge", "classes"), LossCase("CategoricalHinge", "sign"),
    LossCase("CosineSimilarity"), LossCase("CosineSimilarity", "real", {"axis": 1}),
    LossCase("MeanSquaredError"), LossCase("MeanAbsoluteError"), LossCase("MeanAbsolutePercentageError"),
    LossCase("MeanSquaredLogarithmicError", "positive"), LossCase("Huber"), LossCase("Huber", "real", {"delta": 2.5}),
    LossCase("LogCosh"), LossCase("Hinge", "sign"), LossCase("Hinge", "binary"), LossCase("SquaredHinge", "sign"),
    LossCase("SquaredHinge", "binary"), LossCase("KLDivergence", "soft classes"), LossCase("Poisson", "positive"),
]  # fmt: skip


@dataclass(frozen=True)
class MetricCase:
    name: str
    kind: str = "binary"
    options: dict = field(default_factory=dict)
    exact: bool = False  # counts of whole numbers: equal to the bit without weights

    def __str__(self):
        return "-".join([self.name, self.kind, *(f"{key}={value}" for key, value in self.options.items())])

    def batches(self, dtype, weighted, units=4):
        """Three batches of 7, 5 and 1 samples; some predictions on thresholds, some equal to each other."""
        rng = np.random.default_rng(sum(map(ord, str(self))))
        found = []
        for batch in (7, 5, 1):
            y = labels_of(self.kind, rng, batch, units)
            p = rng.uniform(0.02, 0.98, (batch, units))
            if self.kind == "real" or self.options.get("from_logits"):
                p = rng.normal(size=(batch, units))
            if self.exact:
                p = np.round(p * 20) / 20  # ties, and thresholds hit
            if self.name == "AUC" and not self.options.get("from_logits"):
                p[0, :2] = 0, 1  # on the thresholds at the ends
            weights = rng.uniform(0.5, 2, batch).astype(dtype) if weighted else None
            found.append((y if y.dtype.kind == "i" else y.astype(dtype), p.astype(dtype), weights))
        return found


COUNTS = ("TruePositives", "FalsePositives", "TrueNegatives", "FalseNegatives")
THRESHOLDS = (None, 0.3, [0.2, 0.5, 0.9], [0.0, 0.25, 0.5, 0.75, 1.0])
METRICS = [
    MetricCase("Accuracy", "binary", exact=True),
    MetricCase("BinaryAccuracy", exact=True), MetricCase("BinaryAccuracy", "binary", {"threshold": 0.3}, True),
    MetricCase("CategoricalAccuracy", "classes", exact=True), MetricCase("CategoricalAccuracy", "soft classes"),
    MetricCase("SparseCategoricalAccuracy", "sparse", exact=True),
    *(MetricCase("TopKCategoricalAccuracy", "classes", {"k": k}, True) for k in (1, 2, 4, 9)),
    *(MetricCase("SparseTopKCategoricalAccuracy", "sparse", {"k": k}, True) for k in (1, 2)),
    *(MetricCase("BinaryCrossentropy", "chance", {"from_logits": z, "label_smoothing": 0.1}) for z in (False, True)),
    *(MetricCase("CategoricalCrossentropy", "soft classes", {"from_logits": z}) for z in (False, True)),
    *(MetricCase("SparseCategoricalCrossentropy", "sparse", {"from_logits": z}) for z in (False, True)),
    MetricCase("KLDivergence", "soft classes"), MetricCase("Poisson", "positive"), MetricCase("Hinge", "sign"),
    MetricCase("SquaredHinge", "binary"), MetricCase("MeanSquaredError", "real"),
    MetricCase("MeanAbsoluteError", "real"), MetricCase("MeanAbsolutePercentageError", "real"),
    MetricCase("MeanSquaredLogarithmicError", "positive"), MetricCase("LogCoshError", "real"),
    MetricCase("RootMeanSquaredError", "real"),
    *(MetricCase(name, "binary", {"thresholds": t}, True) for name in COUNTS for t in THRESHOLDS),
    *(MetricCase(name, "binary", {"thresholds": t}, True) for name in ("Precision", "Recall") for t in THRESHOLDS),
    *(MetricCase(name, "binary", options) for name in ("Precision", "Recall")
      for options in ({"top_k": 2}, {"class_id": 1}, {"top_k": 2, "class_id": 3, "thresholds": 0.4})),
    *(MetricCase("AUC", "binary", {"curve": c, "summation_method": m}) for c in ("ROC", "PR", "PRGAIN")
      for m in ("interpolation", "minoring", "majoring")),
    MetricCase("AUC", "binary", {"num_thresholds": 7}), MetricCase("AUC", "binary", {"thresholds": [0.1, 0.7]}),
    MetricCase("AUC", "binary", {"from_logits": True}),
    *(MetricCase("AUC", "binary", {"multi_label": True, "curve": c, **more}) for c in ("ROC", "PR")
      for more in ({}, {"label_weights": [1.0, 2.0, 0.5, 0.0]}, {"thresholds": [0.1, 0.7]})),
    MetricCase("AUC", "binary", {"label_weights": [1.0, 2.0, 0.5, 0.25]}),
    *(MetricCase("F1Score", "classes", {"average": a, "threshold": t}) for a in (None, "micro", "macro", "weighted")
      for t in (None, 0.4)),
    MetricCase("FBetaScore", "binary", {"beta": 0.5, "threshold": 0.4}),
    *(MetricCase(name, "real", {"axis": 1}) for name in ("CosineSimilarity", "PearsonCorrelation",
                                                         "ConcordanceCorrelation")),
    MetricCase("CategoricalHinge", "classes"),
    *(MetricCase("SparseCategoricalCrossentropy", "sparse", {"ignore_class": c}) for c in (0, 2)),
    *(MetricCase(name, "binary", {argument: limit, **more})
      for name, argument in (("SensitivityAtSpecificity", "specificity"), ("SpecificityAtSensitivity", "sensitivity"),
                             ("PrecisionAtRecall", "recall"), ("RecallAtPrecision", "precision"))
      for limit, more in ((0.7, {}), (0.3, {"num_thresholds": 5, "class_id": 1}))),
    *(MetricCase("R2Score", "real", {"class_aggregation": a, "num_regressors": n})
      for a in (None, "uniform_average", "variance_weighted_average") for n in (0, 2)),
]  # fmt: skip
