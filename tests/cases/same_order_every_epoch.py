"""After set_random_seed every epoch shuffles the rows into the same order.

Report: tensorflow/tensorflow#44195

Keras: makes a new iterator for each epoch, whose shuffle starts again from the global seed.

Oracle: right: each batch holds the rows that the seed predicts, the same in both epochs.
"""

from cases import keras, np, oracle, right, run, sequential, started


def show():
    rows = []

    def built():
        started(4)
        model = sequential(keras.layers.Dense(1))
        model.compile("sgd", "mse")
        return model

    x = np.arange(10.0, dtype="float32")[:, None]
    oracle.record(built(), x, x, lambda step: rows.append(step.x[:, 0].tolist()), epochs=2, batch_size=5)
    assert (
        rows[:2] == rows[2:] and sorted(rows[0] + rows[1]) == x[:, 0].tolist() and rows[0] + rows[1] != x[:, 0].tolist()
    )
    report = right(built(), x, x, epochs=2, batch_size=5, seed=4)
    assert all(tally.verdict == "bit-equal" for tally in report.cell("batch"))
    return "rows " + ", ".join(f"{row:g}" for row in rows[0] + rows[1]) + " in both epochs"


if __name__ == "__main__":
    run(__file__)
