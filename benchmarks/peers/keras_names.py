"""Keras, or minidl under the same names: fit in the order of the data, or train_on_batch."""

import importlib
import os


class Peer:
    outer_epsilon = False

    def __init__(self, library, mode, outer_epsilon=False):
        self.keras = importlib.import_module(library)
        self.mode = mode
        limit_threads()
        if library == "minidl":
            self.keras.config.set_elementwise(os.environ.get("BENCHMARK_ELEMENTWISE", "numpy"))
        if library == "minidl" and os.environ.get("BENCHMARK_DEVICE") == "cuda" and mode == "fit":
            self.keras.config.set_device("gpu")
            self.keras.config.enable_tensor_float_32_execution(os.environ.get("BENCHMARK_TF32") == "1")

    def load(self, case):
        self.case, keras = case, self.keras
        keras.utils.clear_session()  # the models of other cases go
        self.chunk = case.batches if self.mode == "fit" else 1
        self.x, self.y = case.data()
        regularizers, layers = keras.regularizers, keras.layers
        stack = [layers.Input(shape=(case.widths[0],))]
        for i, (_, units) in enumerate(case.layers):
            last = i == len(case.layers) - 1
            l1, l2 = case.penalties(i)
            penalty = regularizers.l1(l1) if l1 else regularizers.l2(l2) if l2 else None
            stack.append(layers.Dense(units, "sigmoid" if last else "relu", kernel_regularizer=penalty))
            if case.rate(i) > 0:
                stack.append(layers.Dropout(case.rate(i)))
        self.model = keras.models.Sequential(stack)
        self.begin(case)

    def begin(self, case):
        """The case's weights and a new optimizer."""
        self.model.compile(optimizer="adam", loss="binary_crossentropy")
        self.model.set_weights(case.weights())
        self.done, self.shuffled = 0, False

    def shuffle(self):
        """Take the rows in a new order in each epoch from now on."""
        self.shuffled = True

    def run(self, steps):
        model, case = self.model, self.case
        if self.mode == "fit":
            epochs, rest = divmod(steps, case.batches)
            if epochs:
                model.fit(self.x, self.y, batch_size=case.batch, epochs=epochs, shuffle=self.shuffled, verbose=0)
            for step in range(self.done, self.done + rest):
                rows = case.rows(step)
                model.fit(self.x[rows], self.y[rows], batch_size=case.batch, epochs=1, shuffle=False, verbose=0)
        else:
            for step in range(self.done, self.done + steps):
                rows = case.rows(step)
                model.train_on_batch(self.x[rows], self.y[rows])
        self.done += steps

    def weights(self):
        return self.model.get_weights()

    def predict(self, x):
        return self.model.predict(x, verbose=0)


def limit_threads():
    """Tell the frameworks that do not look at the environment."""
    threads = int(os.environ.get("BENCHMARK_THREADS", os.cpu_count()))
    backend = os.environ.get("KERAS_BACKEND")
    if backend == "tensorflow":
        import tensorflow

        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(threads)
    elif backend == "torch":
        import torch

        torch.set_num_threads(threads)
