"""A run that somebody else may stop."""

import lightning as L

from resnetlab.callbacks.recorder import Recorder
from resnetlab.completion import Watch
from resnetlab.errors import Pruned

__all__ = ["Pruning"]


class Pruning(L.Callback):
    """Shows the rows to `watch` after every epoch, and ends the training with Pruned if that says so.

    Not before the epoch's checkpoints are written, which Lightning does after all other callbacks.
    """

    def __init__(self, recorder: Recorder, watch: Watch) -> None:
        self.recorder, self.watch = recorder, watch
        self.stops = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.recorder.rows and self.stop(trainer):  # resumed: the same answer as before the interruption
            self.on_train_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.stop(trainer):
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.stops:
            raise Pruned(f"after epoch {len(self.recorder.rows)} of {trainer.max_epochs}")

    def stop(self, trainer: L.Trainer) -> bool:
        wanted = self.watch(self.recorder.rows)  # asked in the last epoch too: it keeps the books
        left = trainer.max_epochs is not None and len(self.recorder.rows) < trainer.max_epochs
        self.stops = wanted and left and not trainer.should_stop
        return self.stops
