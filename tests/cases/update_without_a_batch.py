"""A fit on batches of unknown number counts one update more than there are batches.

Report: none known; written up below the table

Keras: on TensorFlow in graph mode the compiled step asks for the next batch and meanwhile runs all that does not wait
for it: the weights decay, dropout counters and optimizer.iterations move on. Then the iterator is at its end, and
that is all.

Oracle: right at every step that has a batch; minidl counts the step that has none in the same way, and trains on
equally.
"""

from cases import keras, np, run, sequential, started


def show():
    def batches():
        for i in range(4):
            yield np.full((2, 1), float(i), "float32"), np.zeros((2, 1), "float32"), np.zeros(2, "float32")

    found = []
    for eager in (False, True):
        started()
        model = sequential(keras.layers.Dense(1, kernel_initializer="ones"))
        model.compile(keras.optimizers.SGD(0.5, weight_decay=1.0), "mse", run_eagerly=eager)
        model.fit(batches(), epochs=1, verbose=0)  # the samples' weights are 0: there is nothing but decay, by halves
        found.append((int(model.optimizer.iterations), float(np.asarray(model.get_weights()[0])[0, 0])))
    assert found == [(5, 0.5**5), (4, 0.5**4)]
    return f"after 4 batches iterations {found[0][0]}, the weight halved {found[0][0]} times; run eagerly {found[1][0]}"


if __name__ == "__main__":
    run(__file__)
