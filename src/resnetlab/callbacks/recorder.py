"""One row an epoch in metrics.csv, and early stopping, which is a rule about those rows."""

import time
from typing import Any

import lightning as L

from resnetlab.files import write_rows
from resnetlab.folders import RunFolder
from resnetlab.module import Lab
from resnetlab.summary import Row, exhausted

__all__ = ["Recorder"]


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
        assert isinstance(pl_module, Lab)
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
        if exhausted(self.rows, self.patience):
            trainer.should_stop = True
