"""Several labels at once: a sigmoid each, rare labels focused on, scores for each label."""

import keras
import numpy as np

keras.utils.set_random_seed(5)

rng = np.random.default_rng(5)
x = rng.normal(size=(140, 6))
y = (x @ rng.normal(size=(6, 3)) > 0.8).astype("float32")

model = keras.Sequential(
    [
        keras.Input((6,)),
        keras.layers.Dense(16, activation="swish"),
        keras.layers.Dense(3, activation="sigmoid", bias_initializer=keras.initializers.Constant(-1.0)),
    ]
)
model.compile(
    optimizer=keras.optimizers.Nadam(0.01),
    loss=keras.losses.BinaryFocalCrossentropy(gamma=2.0, apply_class_balancing=True),
    metrics=[
        "binary_accuracy",
        keras.metrics.F1Score(average="macro", threshold=0.5),
        keras.metrics.AUC(multi_label=True, num_labels=3, name="auc"),
        keras.metrics.RecallAtPrecision(0.6),
    ],
)
history = model.fit(x, y, epochs=4, batch_size=35, verbose=0)

result = {
    "history": history.history,
    "weights": model.get_weights(),
    "predictions": (model.predict(x, verbose=0) > 0.5).astype(int),
}
