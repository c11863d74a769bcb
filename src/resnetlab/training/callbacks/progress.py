"""Progress of training: a bar with the time left on a terminal, lines in a log file."""

import time
from typing import Any

import lightning as L
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from resnetlab.console import Console, duration, on_terminal, say
from resnetlab.data import Chunk
from resnetlab.runs.layout import RunFolder
from resnetlab.runs.summary import best_row
from resnetlab.training.callbacks.recorder import Recorder
from resnetlab.training.lightning_internals import INTERRUPTIONS

HEARTBEAT_SECONDS = 60  # in a log file, within an epoch
ROW_FORMAT = (
    "{time/epoch:.1f} s  lr {lr:.2e}  loss {train/loss:.4f}  acc {train/acc:.4f}  val_loss {val/loss:.4f}  "
    "val_acc {val/acc:.4f}"
)
MORE = {"recalibrated": "val/acc_recal", "averaged": "val/acc_avg"}


class ProgressDisplay(L.Callback):
    """A line an epoch with lr, losses, accuracies and the time left, a line for every improvement, and a bar.

    style: auto | bar | lines | off.
    """

    def __init__(self, style: str, recorder: Recorder, folder: RunFolder) -> None:
        self.style = ("bar" if on_terminal() else "lines") if style == "auto" else style
        self.recorder, self.folder = recorder, folder
        left, note = TextColumn("left {task.fields[left]}"), TextColumn("{task.fields[note]}")
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), left, note
        console = Console(highlight=False, soft_wrap=True)
        self.bar = Progress(*columns, console=console, disable=self.style != "bar")
        self.last_line = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.last_line, first = time.monotonic(), trainer.current_epoch * pl_module.span.steps_per_epoch
        self.bar.add_task("training", total=pl_module.span.steps, completed=first, first=first, left="?", note="")
        self.bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Chunk, batch_idx: int
    ) -> None:
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        self.bar.advance(self.bar.task_ids[0], batch.steps)
        self.bar.update(self.bar.task_ids[0], left=self.left(), description=epoch)
        if self.style == "lines" and time.monotonic() - self.last_line > HEARTBEAT_SECONDS:
            self.last_line = time.monotonic()
            self.say(f"{epoch}  step {batch.first + batch.steps}/{pl_module.span.steps_per_epoch}  left {self.left()}")

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
        self.bar.update(self.bar.task_ids[0], left=self.left(), note=f"val_acc {row['val/acc']:.4f}")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.bar.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.bar.stop()
        if isinstance(exception, INTERRUPTIONS):
            self.say(f"interrupted; epochs kept: {len(self.recorder.rows)}; the same command goes on from there")

    def left(self) -> str:
        """The time left at the speed so far, validation included; "?" before the first step."""
        task = self.bar.tasks[0]
        done = task.completed - task.fields["first"]
        return duration((task.elapsed or 0.0) / done * (task.remaining or 0.0) if done else None)

    def say(self, line: str) -> None:
        if self.style == "bar":
            self.bar.console.print(line, markup=False)
        elif self.style != "off":
            say(line)
