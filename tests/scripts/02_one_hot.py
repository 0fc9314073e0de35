"""Three classes as one-hot rows; smoothed labels; the class of each row from the largest probability."""

import keras
import numpy as np

keras.utils.set_random_seed(2)

num_classes = 3
rng = np.random.default_rng(2)
centers = rng.normal(size=(num_classes, 4)) * 2
labels = rng.integers(0, num_classes, 150)
x = centers[labels] + rng.normal(size=(150, 4))
y = keras.utils.to_categorical(labels, num_classes)

model = keras.models.Sequential()
model.add(keras.layers.Input((4,)))
model.add(keras.layers.Dense(12, activation="tanh", kernel_initializer="he_normal"))
model.add(keras.layers.Dense(12, activation="tanh", kernel_initializer=keras.initializers.Orthogonal()))
model.add(keras.layers.Dense(num_classes))
model.add(keras.layers.Activation("softmax"))
model.compile(
    optimizer=keras.optimizers.RMSprop(0.005, momentum=0.5),
    loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
    metrics=["accuracy", keras.metrics.TopKCategoricalAccuracy(k=2), "kl_divergence"],
)
history = model.fit(x, y, epochs=3, batch_size=25, validation_split=0.2, verbose=0)
probabilities = model.predict(x[:10], verbose=0)

result = {
    "history": history.history,
    "weights": model.get_weights(),
    "classes": np.argmax(probabilities, axis=-1),
    "sums": probabilities.sum(axis=-1),
}
