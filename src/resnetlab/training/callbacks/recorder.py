"""One row an epoch in metrics.csv, and early stopping, which is a rule about those rows."""

import time
from typing import Any

import lightning as L

from resnetlab.errors import RunPruned
from resnetlab.runs.files import write_rows
from resnetlab.runs.layout import RunFolder
from resnetlab.runs.summary import Row, out_of_patience
from resnetlab.training.module import ImageClassifier
from resnetlab.training.result import EpochHook


class Recorder(L.Callback):
    """Collects the epochs' rows, and keeps metrics.csv equal to them.

    The rows are part of every checkpoint: a resumed run rewrites metrics.csv from the rows of the checkpoint, so that
    nothing of a half-finished epoch is left in it.
    """

    def __init__(self, folder: RunFolder, patience: int | None = None) -> None:
        self.folder, self.patience = folder, patience
        self.rows: list[Row] = []
        self.started = self.trained = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.trained = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, ImageClassifier)
        now, train_seconds = time.perf_counter(), self.trained - self.started
        images = len(trainer.datamodule.train)  # type: ignore[attr-defined]
        times = {
            "time/epoch": now - self.started,
            "time/train": train_seconds,
            "time/images_per_second": images / train_seconds,
        }
        self.rows.append({**pl_module.row, **times})
        if trainer.is_global_zero:
            write_rows(self.folder.metrics, self.rows)
        for logger in trainer.loggers:
            logger.log_metrics(self.rows[-1], step=int(self.rows[-1]["epoch"]))
        if out_of_patience(self.rows, self.patience):
            trainer.should_stop = True


class Pruning(L.Callback):
    """Shows the rows to `watch` after every epoch, and ends the training with Pruned if that says so.

    Not before the epoch's checkpoints are written, which Lightning does after all other callbacks.
    """

    def __init__(self, recorder: Recorder, watch: EpochHook) -> None:
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
            raise RunPruned(f"after epoch {len(self.recorder.rows)} of {trainer.max_epochs}")

    def stop(self, trainer: L.Trainer) -> bool:
        wanted = self.watch(self.recorder.rows)  # asked in the last epoch too: it keeps the books
        left = trainer.max_epochs is not None and len(self.recorder.rows) < trainer.max_epochs
        self.stops = wanted and left and not trainer.should_stop
        return self.stops
