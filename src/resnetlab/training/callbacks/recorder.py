"""One row an epoch: in metrics.csv, on a terminal or in a log, and what early stopping and pruning are rules about."""

import time
from typing import Any

import lightning as L
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from resnetlab.console import Console, duration, on_terminal, say
from resnetlab.data import Chunk
from resnetlab.errors import DataError, RunPruned
from resnetlab.runs.files import write_rows
from resnetlab.runs.layout import RunFolder
from resnetlab.runs.summary import Row, best_row, out_of_patience
from resnetlab.training.callbacks.energy import Energy
from resnetlab.training.lightning_internals import INTERRUPTIONS
from resnetlab.training.result import EpochHook

HEARTBEAT_SECONDS = 60  # in a log file, within an epoch
ROW_FORMAT = (
    "{time/epoch:.1f} s  lr {lr:.2e}  loss {train/loss:.4f}  acc {train/acc:.4f}  val_loss {val/loss:.4f}  "
    "val_acc {val/acc:.4f}"
)
MORE = {"recalibrated": "val/acc_recal", "averaged": "val/acc_avg"}


class Recorder(L.Callback):
    """Collects the epochs' rows, and keeps metrics.csv equal to them.

    patience: epochs without a new best val_acc after which training stops; None for never. best_column: what the best
    epoch is the best in. The rows are part of every checkpoint: a resumed run rewrites metrics.csv from them, so that
    nothing of a half-finished epoch is left in it.
    """

    def __init__(
        self, folder: RunFolder, energy: Energy, patience: int | None = None, best_column: str = "val/acc"
    ) -> None:
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


class Pruning(L.Callback):
    """Calls the hook with the rows after every epoch, and ends the training with RunPruned if it returns True.

    Not before the epoch's checkpoints are written, which Lightning does after all other callbacks.
    """

    def __init__(self, recorder: Recorder, hook: EpochHook) -> None:
        self.recorder, self.hook = recorder, hook
        self.pruned = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.recorder.rows and self.ask(trainer):  # resumed: the same answer as before the interruption
            self.on_train_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.ask(trainer):
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.pruned:
            raise RunPruned(f"after epoch {len(self.recorder.rows)} of {trainer.max_epochs}")

    def ask(self, trainer: L.Trainer) -> bool:
        """Whether the run ends here: also asked after the last epoch, whose rows the hook reports, but not obeyed."""
        stop = self.hook(self.recorder.rows)
        epochs_left = trainer.max_epochs is not None and len(self.recorder.rows) < trainer.max_epochs
        self.pruned = stop and epochs_left and not trainer.should_stop
        return self.pruned


class ProgressDisplay(L.Callback):
    """A line an epoch with lr, losses, accuracies and the time left, a line for every improvement, and a bar.

    style: auto | bar | lines | off.
    """

    def __init__(self, style: str, recorder: Recorder, folder: RunFolder) -> None:
        self.style = ("bar" if on_terminal() else "lines") if style == "auto" else style
        self.recorder, self.folder = recorder, folder
        self.console = Console(highlight=False, soft_wrap=True)
        self.bar: Progress | None = None
        self.start = self.last_line = 0.0
        self.first_step = self.step = self.total = self.per_epoch = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.total, self.per_epoch = pl_module.span.steps, pl_module.span.steps_per_epoch
        self.first_step = self.step = trainer.current_epoch * self.per_epoch
        self.start = self.last_line = time.monotonic()
        if self.style == "bar":
            left, note = TextColumn("left {task.fields[left]}"), TextColumn("{task.fields[note]}")
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
            self.bar = Progress(*columns, left, note, console=self.console)
            self.bar.add_task("training", total=self.total, completed=self.step, left="?", note="")
            self.bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Chunk, batch_idx: int
    ) -> None:
        self.step += batch.steps
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self.update(description=epoch)
        if self.style == "lines" and time.monotonic() - self.last_line > HEARTBEAT_SECONDS:
            self.last_line = time.monotonic()
            within = self.step - trainer.current_epoch * self.per_epoch
            self.say(f"{epoch}  step {within}/{self.per_epoch}  left {self.left()}")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        (*earlier, row), column = self.recorder.rows, self.recorder.best_column
        self.last_line = time.monotonic()
        more = [f"{name} {row[key]:.4f}" for name, key in MORE.items() if key in row]
        metrics = "  ".join([ROW_FORMAT.format(**row), *more])
        self.say(f"epoch {row['epoch']}/{trainer.max_epochs}  {metrics}  left {self.left()}")
        if self.recorder.best() is row:
            averaged = column != "val/acc" and column in row
            name, key = ("averaged val_acc", column) if averaged else ("val_acc", "val/acc")
            before = best_row(earlier, column) or {}
            change = f"improved from {before[key]:.5f} to" if key in before else "is"
            self.say(f"epoch {row['epoch']}: {name} {change} {row[key]:.5f}, saved {self.folder.best.name}")
        self.update(note=f"val_acc {row['val/acc']:.4f}")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.stop()
        if isinstance(exception, INTERRUPTIONS):
            self.say(f"interrupted; epochs kept: {len(self.recorder.rows)}; the same command goes on from there")

    def left(self) -> str:
        """The time left at the speed so far, validation included; "?" before the first step."""
        done = self.step - self.first_step
        return duration((time.monotonic() - self.start) / done * (self.total - self.step) if done else None)

    def say(self, line: str) -> None:
        if self.bar is not None:
            self.console.print(line, markup=False)
        elif self.style != "off":
            say(line)

    def update(self, **fields: str) -> None:
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.step, left=self.left(), **fields)  # type: ignore[arg-type]

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
