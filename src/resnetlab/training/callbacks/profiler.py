"""Where the time of a step goes: a trace of some steps, for a browser, and a table of the most expensive operations."""

import os
from collections.abc import Generator
from contextlib import nullcontext
from functools import partial
from itertools import repeat
from typing import Any

import lightning as L
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from resnetlab.runs.files import write_text
from resnetlab.runs.layout import RunFolder
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
    """One sentence if the epoch is too short for the steps to record."""
    if steps is None or (count := recorded_steps(steps, per_epoch)[1]) == steps:
        return None
    return f"trainer.profile={steps}: an epoch has {per_epoch} steps, {count} of them are recorded"


class Profile(L.Callback):
    """Records `steps` training steps of the first epoch that this process trains, and changes nothing else.

    Writes profile/trace.json.gz, a Chrome trace, and profile/operations.txt. The module goes on with `record` after
    every step, however many are in a batch of Lightning's.
    """

    def __init__(self, folder: RunFolder, steps: int) -> None:
        self.folder, self.steps = folder, steps
        self.recording: Generator[None, None, None] | None = None  # until the first epoch that is trained here

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        if self.recording is None and trainer.is_global_zero:
            # in a graph the marks are those of the recording, which is made in the first steps
            pl_module.step.mark = record_function
            self.recording = self.record(pl_module)
            pl_module.step_hooks.append(partial(next, self.recording))
            next(self.recording)

    def record(self, module: ImageClassifier) -> Generator[None, None, None]:
        """Goes on from one yield to the next after each step. Closed while it records, it writes no file."""
        first, count = recorded_steps(self.steps, module.span.steps_per_epoch)
        yield from repeat(None, first)
        if module.engine_name == "graph":
            os.environ.update(FOR_GRAPHS)  # for good: CUPTI stays as long as the process
        on_cuda = [ProfilerActivity.CUDA] if module.device.type == "cuda" else []
        if on_cuda:
            torch.cuda.synchronize(module.device)  # the steps before are not recorded
        # without acc_events torch warns that the events of a second recording would be lost
        profiler = profile(activities=[ProfilerActivity.CPU, *on_cuda], acc_events=True)
        profiler.start()
        try:
            yield from repeat(None, count)
        finally:
            profiler.stop()  # which waits for the device
            module.step.mark = nullcontext
        self.folder.trace.parent.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self.folder.trace))
        order = f"self_{module.device.type}_time_total"
        table = profiler.key_averages().table(sort_by=order, row_limit=OPERATIONS, max_name_column_width=80)
        write_text(self.folder.operations, f"{count} steps from step {first} of the epoch on\n{table}\n")
        yield from repeat(None)

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        if self.recording is not None:
            self.recording.close()
