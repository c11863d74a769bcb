"""Base class of the schedules: pure functions of the step that return learning rate and momentum.

Time is counted in epochs as a float: t = 0 at the start of epoch 1, t = e - 1 at the start of epoch e. A schedule is
one dataclass, at once its typed configuration and the function. A subclass says what multiple of the configuration's lr
holds at a moment (`lr_factor`); interval, stretch, warmup and warmup_prefix are applied here and nowhere else.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from resnetlab import errors


@dataclass(frozen=True)
class RunLength:
    """Length of a run in steps per epoch and epochs. ConfigError unless both are whole numbers of at least 1."""

    steps_per_epoch: int
    epochs: int

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            errors.require(isinstance(value, int) and value >= 1, key, value, "be a whole number of at least 1")

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs


class SchedulePoint(NamedTuple):
    """A point in a schedule's own time, with interval, stretch and warmup_prefix already applied."""

    t: float  # epochs since the start, in the schedule's own time
    T: float  # epochs the schedule lasts, in its own time
    k: int  # step of the run that t belongs to, from 0
    n: int  # steps of the run that the schedule lasts: its last one is n - 1


@dataclass
class Schedule:
    """Base of all schedules: `lr` and `momentum` at any step; `check` and `check_span` refuse what makes no sense."""

    stateful: ClassVar[bool] = False  # True: lr() is only the plan, a torch scheduler must be stepped besides
    allows_warmup: ClassVar[bool] = True
    relative = True  # lr_factor returns multiples of the configuration's lr; False: learning rates

    name: str = "?"
    interval: str = "epoch"  # epoch: an epoch's first value holds until its end, as in Keras | step: each step its own
    length: float | None = None  # epochs it was made for; null: its last milestone, else the run's epochs
    stretch: bool = False  # scale the schedule's epochs, warmup included, so that its length fills the run
    warmup: float = 0.0  # epochs in which a factor on the lr rises linearly to 1, step by step; 0: off
    warmup_from: float = 0.1  # warmup's factor at step 0, in [0, 1]
    # true: the schedule, milestones included, begins when warmup has reached lr | false: it runs under it from epoch 1
    warmup_prefix: bool = False

    def lr_factor(self, at: SchedulePoint) -> float:
        """The lr at that moment without warmup, a multiple of the configuration's lr (or itself, unless `relative`)."""
        raise NotImplementedError(f"{type(self).__name__} has no lr_factor")

    def lr(self, k: int, base: float, span: RunLength) -> float:
        """The learning rate at step k (from 0) of a run of that span; base: the configuration's lr."""
        unit = base if self.relative else 1.0
        return unit * self.lr_factor(self.moment(k, span)) * self.warmup_factor(k, span)

    def momentum(self, k: int, base: float, span: RunLength) -> float:
        """SGD's momentum or Adam's beta1 at step k (from 0); base: the configuration's."""
        return base

    def designed_length(self) -> float | None:
        """Epochs the schedule was made for, warmup included; None if it fits itself to any run."""
        return self.length

    def prefix(self) -> float:
        """Epochs of warmup before the schedule's own time begins; timm's warmup_prefix."""
        return self.warmup if self.warmup_prefix else 0.0

    def end(self) -> float | None:
        """Epoch of the last change that the schedule plans, None if that depends on the run; for `length_warning`."""
        return self.designed_length()

    def time(self, k: int, span: RunLength) -> float:
        """Epochs of the schedule's own time at step k. Exact at whole epochs, where milestones lie: one division."""
        length = self.designed_length()
        if self.stretch and length is not None:
            return k * length / span.steps
        return k / span.steps_per_epoch

    def moment(self, k: int, span: RunLength) -> SchedulePoint:
        """The SchedulePoint of step k; with interval=epoch, that of the first step of k's epoch."""
        if self.interval == "epoch":
            k -= k % span.steps_per_epoch
        length, t = self.designed_length(), max(self.time(k, span) - self.prefix(), 0.0)
        length = span.epochs if length is None else length
        steps = span.steps if self.stretch else round(length * span.steps_per_epoch)
        return SchedulePoint(t, length - self.prefix(), k, steps)

    def warmup_factor(self, k: int, span: RunLength) -> float:
        """Warmup's factor on the lr at step k, as torch's LinearLR (Goyal et al. 2017, arXiv 1706.02677)."""
        t = self.time(k, span)
        return 1.0 if t >= self.warmup else self.warmup_from + (1 - self.warmup_from) * t / self.warmup

    def check(self) -> None:
        """Refuses any value that makes no sense whatever the run. Raises ConfigError with key, value and cure."""
        require(self.name == type(self).name, "name", self.name, f"{type(self).name} in a {type(self).__name__}")
        for key, value in vars(self).items():
            require(not isinstance(value, float) or math.isfinite(value), key, value, "a finite number")
        errors.check_limits("schedule", vars(self))
        must = "false unless schedule.length says how many epochs the schedule was made for"
        require(not self.stretch or bool(self.designed_length()), "stretch", self.stretch, must)
        require(self.warmup == 0 or self.allows_warmup, "warmup", self.warmup, f"0 with {self.name}")
        if self.length is not None:
            self.check_epochs(self.length - self.prefix())

    def check_span(self, span: RunLength) -> None:
        """Refuses what can only be seen with the run's length known. Raises ConfigError."""
        epochs = self.time(span.steps, span)
        require(self.warmup <= epochs, "warmup", self.warmup, f"at most the {epochs:g} epochs that there are")
        self.check_epochs(self.moment(0, span).T)

    def check_epochs(self, epochs: float) -> None:
        """Refuses keys for which these epochs of the schedule's own time leave no room."""
        must = "less than the schedule's epochs with schedule.warmup_prefix=true: none would be left for it"
        require(not self.warmup_prefix or epochs > 0, "warmup", self.warmup, must)

    def check_period(self, key: str, value: float, epochs: float, span: RunLength) -> None:
        """Refuses a period that is shorter than what it is sampled at."""
        least = 1.0 if self.interval == "epoch" and not self.stretch else self.time(1, span)
        must = f"so long that a cycle lasts at least {least:g} epochs: with this schedule.interval lr changes no sooner"
        require(epochs >= least * (1 - 1e-9), key, value, must)


def schedule_table(
    schedule: Schedule, lr: float, momentum: float, span: RunLength, checked: bool = False
) -> npt.NDArray[np.float64]:
    """A run's learning rates and momenta, (steps, 2) float64: column 0 the lr, column 1 the momentum of each step.

    lr, momentum: the configuration's. checked: its own checks have passed, perhaps with more steps per epoch. Raises
    ConfigError if a check fails, an lr is negative or not finite in float32, or all of epoch 1 is 0.
    """
    if not checked:
        schedule.check()
        schedule.check_span(span)
    rows = np.full((span.steps, 2), np.inf)
    try:
        for k in range(span.steps):
            rows[k] = schedule.lr(k, lr, span), schedule.momentum(k, momentum, span)
    except OverflowError:  # Python's pow: the rest of the table stays at infinity and is refused like any bad value
        pass
    bad = np.flatnonzero((rows[:, 0] < 0) | ~(rows <= np.finfo(np.float32).max).all(axis=1))
    if bad.size:
        k = int(bad[0])
        made = f"from lr (={lr:g}), momentum (={momentum:g}) it makes {rows[k, 0]:g}, {rows[k, 1]:g} at step {k}"
        errors.require(False, "schedule.name", schedule.name, f"keep the lr finite in float32 and not negative: {made}")
    if span.steps_per_epoch > 1 and not rows[: span.steps_per_epoch, 0].any():
        by_step, must = replace(schedule, interval="step"), "not be 0 throughout epoch 1, which learns nothing"
        if any(by_step.lr(k, lr, span) for k in range(span.steps_per_epoch)):
            must += "; schedule.interval=step lets it rise within the epoch"
        errors.require(False, "schedule.name", schedule.name, must)
    return rows


def length_warning(schedule: Schedule, span: RunLength) -> str | None:
    """One sentence for the user if the run is too short for its schedule, and what to do; else None."""
    end = schedule.end()
    if schedule.stretch or end is None or span.epochs >= end:
        return unchanged_warning(schedule, span)
    last = schedule.lr(span.steps - 1, 1.0, span)
    ends = f"{last:.4g} x lr" if schedule.relative else f"lr {last:.4g}"
    cure = "length and schedule.stretch=true scale" if schedule.designed_length() is None else "stretch=true scales"
    return f"the schedule was made for {end:g} epochs, the run has {span.epochs}: it ends at {ends}; schedule.{cure} it"


def unchanged_warning(schedule: Schedule, span: RunLength) -> str | None:
    """One sentence if no step of several epochs changes the schedule's factor, warmup's apart; else None."""

    def changes(interval: str) -> bool:
        one = replace(schedule, interval=interval)
        first = one.lr_factor(one.moment(0, span))
        return any(abs(one.lr_factor(one.moment(k, span)) - first) > 1e-12 for k in range(1, span.steps))

    if schedule.stateful or schedule.name == "constant" or span.epochs == 1 or changes(schedule.interval):
        return None
    cure = "; schedule.interval=step lets it" if changes("step") else ""
    line = f"schedule={schedule.name} never changes the lr in the {span.epochs} epochs of this run{cure}"
    return line if cure or schedule.end() is None else None  # a length was given


def require(ok: bool, key: str, value: Any, must: str) -> None:
    """Raises ConfigError("schedule.key (=value) must be ...") unless ok."""
    errors.require(ok, f"schedule.{key}", value, f"be {must}")
