"""Progress of training: a bar with the time left on a terminal, lines in a log file."""

import time
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from resnetlab.console import duration, on_terminal, say
from resnetlab.data import Chunk
from resnetlab.runs.layout import RunFolder
from resnetlab.runs.summary import improvements
from resnetlab.training.callbacks.recorder import Recorder
from resnetlab.training.lightning_internals import INTERRUPTIONS
from resnetlab.training.module import ImageClassifier

HEARTBEAT_SECONDS = 60  # in a log file, within an epoch


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

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert trainer.max_epochs is not None
        assert isinstance(pl_module, ImageClassifier)
        self.per_epoch = per_epoch = pl_module.span.steps_per_epoch
        self.total = trainer.max_epochs * per_epoch
        self.first_step = self.step = trainer.current_epoch * per_epoch
        self.start = self.last_line = time.monotonic()
        if self.style == "bar":
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left {task.fields[left]}"),
                TextColumn("{task.fields[note]}"),
                console=self.console,
            )
            self.bar.add_task("training", total=self.total, completed=self.step, left="?", note="")
            self.bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Chunk, batch_idx: int
    ) -> None:
        self.step += batch.steps
        epoch = trainer.current_epoch + 1
        if self.bar is not None:
            self._update(f"epoch {epoch}/{trainer.max_epochs}")
        elif self.style == "lines" and time.monotonic() - self.last_line > HEARTBEAT_SECONDS:
            self.last_line = time.monotonic()
            within = self.step - trainer.current_epoch * self.per_epoch
            self.say(f"epoch {epoch}/{trainer.max_epochs}  step {within}/{self.per_epoch}  left {self.left()}")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        row, history = self.recorder.rows[-1], improvements(self.recorder.rows)
        self.last_line = time.monotonic()
        self.say(
            f"epoch {row['epoch']}/{trainer.max_epochs}  {row['time/epoch']:.1f} s  lr {row['lr']:.2e}  "
            f"loss {row['train/loss']:.4f}  acc {row['train/acc']:.4f}  val_loss {row['val/loss']:.4f}  "
            f"val_acc {row['val/acc']:.4f}"
            + (f"  recalibrated {row['val/acc_recal']:.4f}" if "val/acc_recal" in row else "")
            + (f"  averaged {row['val/acc_avg']:.4f}" if "val/acc_avg" in row else "")
            + f"  left {self.left()}"
        )
        if history[-1][0] == row["epoch"]:
            change = f"improved from {history[-2][1]:.5f} to" if len(history) > 1 else "is"
            self.say(f"epoch {row['epoch']}: val_acc {change} {history[-1][1]:.5f}, saved {self.folder.best.name}")
        if self.bar is not None:
            self._update(f"epoch {row['epoch']}/{trainer.max_epochs}", f"val_acc {row['val/acc']:.4f}")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._stop()
        if isinstance(exception, INTERRUPTIONS):
            self.say(f"interrupted; epochs kept: {len(self.recorder.rows)}; the same command goes on from there")

    def left(self) -> str:
        """The time left at the speed so far, validation included."""
        done = self.step - self.first_step
        if not done:
            return "?"
        seconds = (time.monotonic() - self.start) / done * (self.total - self.step)
        return duration(seconds)

    def say(self, line: str) -> None:
        if self.bar is not None:
            self.console.print(line, markup=False)
        elif self.style != "off":
            say(line)

    def _update(self, description: str, note: str | None = None) -> None:
        assert self.bar is not None
        if note is not None:
            self.bar.update(self.bar.task_ids[0], note=note)
        self.bar.update(self.bar.task_ids[0], completed=self.step, description=description, left=self.left())

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
