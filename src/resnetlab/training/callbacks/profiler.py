"""Where the time of a step goes: a trace of some steps, for a browser, and a table of the most expensive operations."""

import os
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from resnetlab.runs.files import write_text
from resnetlab.runs.layout import RunFolder
from resnetlab.training.engine import CudaGraphRunner, EagerRunner
from resnetlab.training.module import ImageClassifier

WARM_UP = 5  # steps before those that are recorded: kernels are chosen, a graph is captured
OPERATIONS = 30  # lines of the table
# torch.profiler sets them for its own graphs: CUPTI, which is taken down and set up again, crashes beside a graph
FOR_GRAPHS = {"DISABLE_CUPTI_LAZY_REINIT": "1", "TEARDOWN_CUPTI": "0"}


def recorded_steps(steps: int, per_epoch: int) -> tuple[int, int]:
    """(first, count) of the steps of an epoch that are recorded; count is less than `steps` in a short epoch."""
    first = min(WARM_UP, max(per_epoch - steps, min(1, per_epoch - 1)))
    return first, min(steps, per_epoch - first)


def steps_warning(steps: int | None, per_epoch: int) -> str | None:
    """One sentence if the epoch is too short for what was asked."""
    if steps is None or (count := recorded_steps(steps, per_epoch)[1]) == steps:
        return None
    return f"trainer.profile={steps}: an epoch has {per_epoch} steps, {count} of them are recorded"


class Profile(L.Callback):
    """Records `steps` training steps of the first epoch that this process trains, and changes nothing else.

    The steps are the lab's own, whatever the engine and however many are in a batch of Lightning's. Written are
    profile/trace.json.gz, a Chrome trace, and profile/operations.txt. Until then it stands in the engine's place.
    """

    def __init__(self, folder: RunFolder, steps: int) -> None:
        self.folder, self.steps = folder, steps
        self.seen = 0
        self.profiler: profile | None = None
        self.put_back: Callable[[], None] | None = None
        self.done = False

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.done or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, ImageClassifier)
        self.done = True
        self.first, self.count = recorded_steps(self.steps, pl_module.span.steps_per_epoch)
        engine, step = pl_module.engine, pl_module.step
        parts = {name: getattr(step, name) for name in ("forward", "backward")}

        def put_back() -> None:
            pl_module.engine = engine
            for name, part in parts.items():
                setattr(step, name, part)

        self.put_back = put_back
        for name, part in parts.items():
            setattr(step, name, marked(f"resnetlab.{name}", part))
        pl_module.engine = Watched(engine, self)  # type: ignore[assignment]

    def before_step(self, engine: EagerRunner | CudaGraphRunner) -> None:
        if self.seen == self.first:
            self.begin(engine)
        self.seen += 1

    def after_step(self) -> None:
        if self.seen == self.first + self.count:
            self.end()

    def begin(self, engine: EagerRunner | CudaGraphRunner) -> None:
        self.on_cuda = engine.step.clock.device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.on_cuda else [])]
        if engine.name == "graph":
            os.environ.update(FOR_GRAPHS)  # for good: CUPTI stays as long as the process
        self.wait()
        self.profiler = profile(activities=activities, acc_events=True)  # else torch warns that a second would be lost
        self.profiler.start()

    def end(self) -> None:
        """Writes the files."""
        profiler = self.stop()
        assert profiler is not None
        self.folder.trace.parent.mkdir(exist_ok=True)
        profiler.export_chrome_trace(str(self.folder.trace))
        order = "self_cuda_time_total" if self.on_cuda else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=order, row_limit=OPERATIONS, max_name_column_width=80)
        write_text(self.folder.operations, f"{self.count} steps from step {self.first} of the epoch on\n{table}\n")

    def stop(self) -> profile | None:
        """Ends the recording, if there is one, and leaves the step as it was."""
        profiler, self.profiler = self.profiler, None
        if self.put_back is not None:
            self.put_back()
            self.put_back = None
        if profiler is not None:
            self.wait()
            profiler.stop()
        return profiler

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.stop()

    def wait(self) -> None:
        if self.on_cuda:
            torch.cuda.synchronize()


class Watched:
    """Runs a step as the engine does, with a mark for it in the trace."""

    def __init__(self, engine: EagerRunner | CudaGraphRunner, watcher: Profile) -> None:
        self.engine, self.watcher, self.name = engine, watcher, engine.name

    def __call__(self, images: int, lr: float, momentum: float) -> None:
        self.watcher.before_step(self.engine)
        with record_function("resnetlab.step"):
            self.engine(images, lr, momentum)
        self.watcher.after_step()


def marked(name: str, part: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        with record_function(name):
            return part(*arguments)

    return call
