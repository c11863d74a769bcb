"""Leslie Smith's learning-rate range test: raise the rate from almost 0, step by step, until the loss explodes.

Smith 2017, Cyclical Learning Rates (arXiv 1506.01186), section 3.3, and 2018 (arXiv 1803.09820) for several weight
decays or momenta in one picture; the exponential ramp and the smoothed loss are fastai's.
"""

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resnetlab.config.overrides import jobs_of
from resnetlab.config.schema import Config
from resnetlab.console import Countdown, say
from resnetlab.data import ImageData, derive_seed
from resnetlab.errors import require
from resnetlab.optim.optimizers.base import set_lr_momentum
from resnetlab.runs.files import digest, make_folder, write_json, write_rows
from resnetlab.runs.summary import Row
from resnetlab.training.build import build_module
from resnetlab.training.engine.step import clip_gradients
from resnetlab.training.isolation import preserve_process_state
from resnetlab.training.module import ImageClassifier
from resnetlab.training.plots import draw_range_test, write_even_if_interrupted

# of the exponential mean, which lags by 1 / (1 - smoothing) steps: fastai's 0.98 by half of its 100 steps, four decades
# of the rate; 0.9 by ten
SMOOTHING = 0.9


@dataclass(frozen=True)
class Ramp:
    """The learning rates: `steps` of them from start to end, equally far apart on a linear or a logarithmic scale.

    stop: ends the test when the smoothed loss is that many times its minimum. Raises ConfigError, naming the option.
    """

    start: float = 1e-7
    end: float = 10.0
    steps: int = 100
    shape: str = "exponential"
    stop: float = 4.0

    def __post_init__(self) -> None:
        ordered, must = 0 < self.start < self.end < math.inf, f"be above 0 and below --end (={self.end:g})"
        require(ordered, "--start", f"{self.start:g}", must)
        require(10 <= self.steps <= 100_000, "--steps", self.steps, "be in 10..100,000")
        must = "be above 1, a multiple of the least loss; 1e9 is never"
        require(1 < self.stop < math.inf, "--stop", f"{self.stop:g}", must)

    def lr(self, k: int) -> float:
        """The learning rate of step k, from 0."""
        x = k / (self.steps - 1)
        if self.shape == "linear":
            return self.start + (self.end - self.start) * x
        return self.start * (self.end / self.start) ** x


def range_test(module: ImageClassifier, data: ImageData, ramp: Ramp, device: torch.device) -> Iterator[Row]:
    """Rows of step, lr, loss, acc (of the batch) and smoothed (bias-corrected mean loss), until it diverges.

    Any optimizer; momentum, decay and penalty as the module has them; the schedule is not used. In float32. A copy of
    the module is trained; when the iterator ends or is closed, torch's random numbers are what they were.
    """
    rows: list[Row] = []
    mean, countdown = 0.0, Countdown("step", ramp.steps)
    module = deepcopy(module).to(device).train()
    with torch.random.fork_rng(range(torch.cuda.device_count()) or None):
        torch.manual_seed(derive_seed(module.config.seed, 1))  # of dropout
        optimizer = module.build_optimizer()
        batches = chain.from_iterable(data.batches(epoch, device) for epoch in count(1))
        for k, (x, y) in enumerate(islice(batches, ramp.steps)):
            set_lr_momentum(optimizer, ramp.lr(k), module.momentum)
            optimizer.zero_grad()
            batch_loss, _, correct = module.batch_loss(x, y)
            batch_loss.backward()
            if (most := module.config.trainer.gradient_clip) is not None:
                clip_gradients(list(module.model.parameters()), most)
            optimizer.step()
            loss, acc = float(batch_loss.detach()), int(correct) / len(y)
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            smoothed = mean / (1 - SMOOTHING ** (k + 1))
            rows.append({"step": k, "lr": ramp.lr(k), "loss": loss, "acc": acc, "smoothed": smoothed})
            yield rows[-1]
            if diverged_at(rows, ramp) is not None:
                break
            countdown.tick()


def diverged_at(rows: Sequence[Row], ramp: Ramp) -> float | None:
    """The last learning rate, if the loss exploded there: beyond `stop` times its minimum so far, or not a number."""
    least = min((row["smoothed"] for row in rows if math.isfinite(row["smoothed"])), default=math.inf)
    return None if rows[-1]["smoothed"] <= ramp.stop * least else rows[-1]["lr"]


def suggestions(rows: Sequence[Row]) -> dict[str, float | None]:
    """{rule: learning rate}, of the smoothed loss over log lr; None where a rule finds nothing.

    Seen are the steps from the first tenth, where the mean is still of a few batches, to the minimum: beyond it the
    loss falls back from its explosions.
    steepest: where it falls fastest. valley: fastai's rule, half way along the longest descent, whatever rises are in
    it. minimum/10: a tenth of the rate at its minimum.
    """
    usable = [row for row in rows[len(rows) // 10 :] if math.isfinite(row["smoothed"])]
    losses = [row["smoothed"] for row in usable]
    end = losses.index(min(losses)) + 1 if losses else 0
    losses, rates = losses[:end], [row["lr"] for row in usable[:end]]
    places = {"steepest": steepest(losses, [math.log(lr) for lr in rates]), "valley": valley(losses)}
    found = {rule: None if place is None else rates[place] for rule, place in places.items()}
    return {**found, "minimum/10": rates[-1] / 10 if end > 1 else None}  # at the first step nothing was learned


def preferred(found: dict[str, float | None]) -> tuple[str | None, str]:
    """(the rule to begin with, why): the valley, unless it lies at the edge of the explosion; else the minimum's."""
    valley, minimum = found["valley"], found["minimum/10"]
    if valley is not None and (minimum is None or valley <= 5 * minimum):  # half of the rate at the minimum
        return "valley", "amid the longest descent, so that no single noisy step decides"
    if minimum is not None:
        return "minimum/10", "a tenth of the rate at the least loss; no descent ends well below that"
    return None, ""


def steepest(losses: Sequence[float], logs: Sequence[float]) -> int | None:
    """Index with the most negative central difference of loss over log lr; None if it falls nowhere."""
    slopes = np.subtract(losses[2:], losses[:-2]) / np.subtract(logs[2:], logs[:-2])
    return int(slopes.argmin()) + 1 if slopes.min(initial=0) < 0 else None


def valley(losses: Sequence[float]) -> int | None:
    """Index half way along the longest decreasing subsequence, as fastai counts it; None if it has no 6 values.

    fastai places the subsequence as if it had no gaps. Of fewer values the third and the sixth are no whole steps: the
    index then lies before the descent, at -1 even, the end of the curve.
    """
    end, length = longest_decrease(losses)
    return end - length + int(length / 3) + int(length / 6) if length >= 6 else None


def longest_decrease(values: Sequence[float]) -> tuple[int, int]:
    """(index of the end, length) of the longest strictly decreasing subsequence, the first to end of equals."""
    array, lengths = np.asarray(values), np.ones(len(values), dtype=int)  # of the longest that ends at each value
    for i in range(len(values)):
        lengths[i] += lengths[:i][array[:i] > array[i]].max(initial=0)
    return (int(lengths.argmax()), int(lengths.max())) if len(values) else (0, 0)


def lr_range_command(overrides: Sequence[str], out: Path | None, **options: Any) -> Path:
    """The range test of every job of the command line; writes lr-range.png, .csv, .json and returns their folder.

    options: of the Ramp.
    """
    ramp = Ramp(**options)
    configs = {label or config.name: config for label, config in jobs_of(overrides)}
    first = next(iter(configs.values()))
    content = [vars(ramp), *(config.identity | {"seed": config.seed} for config in configs.values())]
    folder = out or first.study_folder / "lr-range" / f"{first.name}-{digest(content)}"
    make_folder(folder)
    curves: dict[str, list[Row]] = {}
    with write_even_if_interrupted(lambda: write_range_test(folder, ramp, curves, configs), curves.values()):
        for label, config in configs.items():
            with preserve_process_state(config.threads):
                run_range_test(label, config, ramp, curves.setdefault(label, []))
    return folder


def run_range_test(label: str, config: Config, ramp: Ramp, rows: list[Row]) -> None:
    """One range test, its rows added as they come, and what it suggests."""
    data = ImageData(config.data, config.batch_size, config.shift, config.seed)
    module = build_module(config, data)
    steps = f"{ramp.steps} steps of {config.batch_size} images"
    say(f"{label}: {steps}, momentum {module.momentum:g} throughout; the schedule is not used")
    if note := data.subset_warning():
        say(f"note: {note}")
    for row in range_test(module, data, ramp, config.trainer.device):
        rows.append(row)  # one by one, so that an interrupt leaves them
    found = suggestions(rows)
    say("  ".join(f"{rule} {'none' if lr is None else f'{lr:.3g}'}" for rule, lr in found.items()))
    rule, why = preferred(found)
    say(f"begin with lr={found[rule]:.3g} ({rule}: {why})" if rule else "no suggestion: the loss falls nowhere")
    end, limit = diverged_at(rows, ramp), f"{ramp.stop:g} times its minimum"
    say(f"the smoothed loss stayed below {limit}" if end is None else f"it reached {limit} at lr {end:.3g}")


def write_range_test(folder: Path, ramp: Ramp, curves: dict[str, list[Row]], configs: dict[str, Config]) -> None:
    """Writes the three files; no suggestions of a test that was interrupted before its end."""
    found = {label: rows for label, rows in curves.items() if rows}
    drawn, runs = {}, []
    for label, rows in found.items():
        config, end = configs[label], diverged_at(rows, ramp)
        suggested = suggestions(rows if len(rows) == ramp.steps or end is not None else [])
        drawn[label] = rows, suggested, preferred(suggested)[0]
        about: dict[str, Any] = {"label": label, "configuration": config.name, "differs_from_defaults": config.identity}
        about |= {"seed": config.seed, "steps": len(rows), "diverged_at": end}
        runs.append(about | {"suggestions": suggested, "preferred": drawn[label][2]})
    draw_range_test(drawn, ramp.shape == "linear", folder / "lr-range.png")
    write_rows(folder / "lr-range.csv", [{"run": label, **row} for label, rows in found.items() for row in rows])
    write_json(folder / "lr-range.json", {"ramp": vars(ramp), "runs": runs})
    say(f"picture, metrics: {folder / 'lr-range.png'}, {folder / 'lr-range.csv'}, {folder / 'lr-range.json'}")
