"""The class notebook on over-fitting, as it stands but for its import lines, which the caller provides."""

NOTEBOOK = """
model = keras.models.Sequential([
    keras.layers.Dense(4, activation=tf.nn.relu, input_shape=(4,), kernel_regularizer=keras.regularizers.l1(l1=0.1)),
    keras.layers.Dense(4, activation=tf.nn.relu, kernel_regularizer=keras.regularizers.l2(l2=0.1)),
    keras.layers.Dense(1, activation=tf.nn.sigmoid)
])
model.compile(optimizer='adam', loss='binary_crossentropy', metrics=['accuracy'])
model.summary()
history = model.fit(x_train, y_train, epochs=EPOCHS, validation_data=(x_test, y_test))
evaluated = model.evaluate(x_test, y_test)
predicted = model.predict(x_test)

dropout_model = keras.models.Sequential([
    keras.layers.Dense(4, activation=tf.nn.relu, input_shape=(4,), kernel_regularizer=keras.regularizers.l1(l1=0.1)),
    keras.layers.Dropout(rate=0.8),
    keras.layers.Dense(4, activation=tf.nn.relu, kernel_regularizer=keras.regularizers.l2(l2=0.1)),
    keras.layers.Dropout(rate=0.5),
    keras.layers.Dense(1, activation=tf.nn.sigmoid)
])
dropout_model.compile(optimizer='adam', loss='binary_crossentropy', metrics=['accuracy'])
dropout_model.summary()
dropout_history = dropout_model.fit(x_train, y_train, epochs=EPOCHS, validation_data=(x_test, y_test))
dropout_evaluated = dropout_model.evaluate(x_test, y_test)
dropout_predicted = dropout_model.predict(x_test)
"""

IMPORTS = {
    "minidl as tf": "import minidl as tf\nfrom minidl import keras",
    "minidl as keras": "import minidl as keras\nimport minidl as tf",
    "TensorFlow": "import tensorflow as tf\nfrom tensorflow import keras",
}


def run(imports, data, *, epochs=5, seed=812):
    """Run the notebook with these imports; its variables."""
    (x_train, y_train), (x_test, y_test) = data
    variables = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test, "EPOCHS": epochs}
    exec(f"{imports}\nkeras.utils.set_random_seed({seed})\n{NOTEBOOK}", variables)
    return variables
