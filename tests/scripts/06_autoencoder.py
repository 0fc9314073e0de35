"""An autoencoder of two models in one, trained to give back its own inputs without their noise."""

import keras
import numpy as np

keras.utils.set_random_seed(6)

rng = np.random.default_rng(6)
x = rng.normal(size=(120, 2)) @ rng.normal(size=(2, 12))

encoder = keras.Sequential(
    [
        keras.Input((12,)),
        keras.layers.GaussianNoise(0.1),
        keras.layers.Dense(8, "relu"),
        keras.layers.Dense(2, name="code"),
    ],
    name="encoder",
)
decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(12)], name="decoder")
autoencoder = keras.Sequential([keras.Input((12,)), encoder, decoder], name="autoencoder")
autoencoder.compile(optimizer="adam", loss="mse")
history = autoencoder.fit(x, x, epochs=4, batch_size=30, shuffle=True, validation_split=0.1, verbose=0)

result = {
    "history": history.history,
    "weights": autoencoder.get_weights(),
    "codes": encoder.predict(x[:6], verbose=0),
    "decoded": decoder.predict(encoder.predict(x[:6], verbose=0), verbose=0),
    "layers": [layer.name for layer in autoencoder.layers],
    "code": autoencoder.get_layer("encoder").get_layer("code").get_weights(),
}
