"""One row an epoch in metrics.csv; early stopping and pruning, which are rules about those rows."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from resnetlab.errors import DataError, RunPruned
from resnetlab.runs.files import write_rows
from resnetlab.runs.layout import RunFolder
from resnetlab.runs.summary import Row, best_row, out_of_patience
from resnetlab.training.callbacks.energy import Energy
from resnetlab.training.result import EpochHook


class Recorder(L.Callback):
    """Collects the epochs' rows, and keeps metrics.csv equal to them.

    patience: epochs without a new best val_acc after which training stops; None for never. best_column: what the best
    epoch is the best in. The rows are part of every checkpoint: a resumed run rewrites metrics.csv from them, so that
    nothing of a half-finished epoch is left in it.
    """

    def __init__(self, folder: RunFolder, energy: Energy, patience: int | None, best_column: str) -> None:
        self.folder, self.energy, self.patience, self.best_column = folder, energy, patience, best_column
        self.rows: list[Row] = []
        self.epoch_start = self.training_end = 0.0

    def best(self) -> Row | None:
        """The row of the best epoch so far."""
        return best_row(self.rows, self.best_column)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch != len(self.rows):  # Lightning (2.6.6) starts at 0 if a checkpoint holds no loops
            epoch, rows = trainer.current_epoch, len(self.rows)
            raise DataError(f"training would go on after epoch {epoch}, the rows end at {rows}")

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epoch_start = time.perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.training_end = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        now, training = time.perf_counter(), self.training_end - self.epoch_start
        times = {"time/epoch": now - self.epoch_start, "time/train": training}
        times["time/images_per_second"] = len(pl_module.data.train) / training
        self.rows.append({**pl_module.epoch_metrics, **self.energy.metrics(), **times})
        if trainer.is_global_zero:
            write_rows(self.folder.metrics, self.rows)
        if out_of_patience(self.rows, self.patience):
            trainer.should_stop = True


class Pruning(Checkpoint):
    """Calls the hook with the rows after every epoch, and ends the training with RunPruned if it returns True.

    A Checkpoint, which Lightning calls after all other callbacks: behind Checkpoints, so that the epoch's are written.
    """

    def __init__(self, recorder: Recorder, hook: EpochHook) -> None:
        self.recorder, self.hook = recorder, hook

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.recorder.rows:  # resumed: the same answer as before the interruption
            self.on_train_epoch_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        stop = self.hook(self.recorder.rows)  # also asked after the last epoch, whose rows it reports, but not obeyed
        last = len(self.recorder.rows) == trainer.max_epochs or trainer.should_stop
        if stop and not last:
            raise RunPruned(f"after epoch {len(self.recorder.rows)} of {trainer.max_epochs}")
