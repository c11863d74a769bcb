"""A run that somebody else may stop."""

from collections.abc import Callable, Sequence

import lightning as L

from resnetlab.callbacks.recorder import Recorder
from resnetlab.errors import Pruned
from resnetlab.summary import Row

__all__ = ["Pruning", "Watch"]

Watch = Callable[[Sequence[Row]], bool]


class Pruning(L.Callback):
    """Shows the rows to `watch` after every epoch, and raises Pruned if that says so and there are epochs left.

    It has to be the last callback: when it raises, the epoch is in metrics.csv and last.ckpt.
    """

    def __init__(self, recorder: Recorder, watch: Watch) -> None:
        self.recorder, self.watch = recorder, watch

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.recorder.rows:  # resumed: the same answer as before the interruption
            self.ask(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.ask(trainer)

    def ask(self, trainer: L.Trainer) -> None:
        done, total = len(self.recorder.rows), trainer.max_epochs
        stop = self.watch(self.recorder.rows)
        if stop and total is not None and done < total and not trainer.should_stop:
            raise Pruned(f"after epoch {done} of {total}")
