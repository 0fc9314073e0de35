"""The steps that minidl's fit runs on a GPU: replays of a captured step, the data and their order there.

device: "gpu", or "host" for a rehearsal without one: the tests' device, which runs the kernels on the processor.
"""

import os
import sys
from pathlib import Path

import numpy as np

from minidl import config, device, on_device
from minidl.batches import ArrayBatches, Epochs
from minidl.callbacks import CallbackList
from peers import keras_names


class Peer(keras_names.Peer):
    def __init__(self, device="gpu"):
        super().__init__("minidl", "step")
        config.enable_tensor_float_32_execution(os.environ.get("BENCHMARK_TF32") == "1")
        self.device = opened(device)

    def begin(self, case):
        super().begin(case)
        self.model.resolve_loss(self.y.shape)
        data = ArrayBatches((self.x, self.y, None), case.batch, False)
        self.rows = np.arange(len(self.x))
        with self.device.active():
            self.there = on_device.Training(
                self.model, self.device, data, Epochs(data), None, CallbackList(), check_finite=False
            )

    def run(self, steps):
        size, batches = self.case.batch, self.case.batches
        last = self.done + steps
        with self.device.active():
            while self.done < last:
                first = self.done % batches
                if first == 0:
                    self.there.fetch()  # as at the end of an epoch
                    self.there.begin([self.rows])
                count = min(last - self.done, batches - first)
                self.there.run([count * size])
                self.done += count

    def weights(self):
        with self.device.active():
            self.there.fetch()
        return super().weights()

    def predict(self, x):
        return self.model.predict(x, verbose=0, device=self.device)


def opened(name):
    """The device of a name."""
    if name == "gpu":
        return device.gpu()
    sys.path.append(str(Path(__file__).parents[2] / "tests"))
    from cuda_host.host import HostDevice

    return HostDevice()
