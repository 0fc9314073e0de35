"""SwapEMAWeights: evaluation with the average of the weights."""

from __future__ import annotations

from minidl import ops
from minidl.callbacks.callback import Callback, Logs


class SwapEMAWeights(Callback):
    """Evaluate and predict with the optimizer's average of the weights, made with use_ema=True, in their place.

    swap_on_epoch: swap already at the end of each epoch, for the callbacks after this one, until the next begins.
    The swap is ops.swap_by_sums, as Keras's on TensorFlow, and so rounds. After predict the weights are put back, as
    Keras says; its on_predict_end forgets to.
    Errors: ValueError for an optimizer without averages, or before its first step.
    """

    def __init__(self, swap_on_epoch: bool = False) -> None:
        super().__init__()
        self.swap_on_epoch = swap_on_epoch
        self._swapped = False

    def _swap(self, *, swapped: bool) -> None:
        """Put the averages into the model (swapped=True) or back, unless they are there."""
        if self._swapped == swapped:
            return
        optimizer = self.model.optimizer
        if not optimizer.use_ema:
            raise ValueError("SwapEMAWeights: the optimizer keeps no average of the weights; give it use_ema=True.")
        if not optimizer.built:
            raise ValueError("SwapEMAWeights: there is no average of the weights before the optimizer's first step.")
        ops.swap_by_sums(self.model.arena.theta, optimizer.averages)
        self._swapped = swapped

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        if self.swap_on_epoch:
            self._swap(swapped=False)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.swap_on_epoch and not self._swapped:
            self._swap(swapped=True)
            assert self.params is not None
            if epoch == self.params["epochs"] - 1:  # at its end fit puts the averages into the model
                self.model.optimizer.averages[...] = self.model.arena.theta

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._swap(swapped=True)

    def on_test_end(self, logs: Logs | None = None) -> None:
        self._swap(swapped=False)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        self._swap(swapped=True)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        self._swap(swapped=False)

    def abort(self) -> None:
        """Put the trained weights back."""
        self._swap(swapped=False)
