"""Schedules that move lr and momentum in opposite directions: cyclic and one_cycle (Smith), as torch has them."""

import math
from dataclasses import dataclass

from resnetlab.optim.schedules.base import RunLength, Schedule, SchedulePoint, require


@dataclass
class _Cycle(Schedule):
    """Base of cyclic and one_cycle: momentum against lr. No warmup, because they start low by themselves."""

    allows_warmup = False

    interval: str = "step"
    cycle_momentum: bool = True  # move SGD's momentum or Adam's beta1 against the lr; false: the top-level momentum
    lowest_momentum: float = 0.85  # at the highest lr, from 0 to highest_momentum
    highest_momentum: float = 0.95  # at the lowest lr, in [0, 1)

    def phase(self, at: SchedulePoint) -> float:
        """Where the momentum is: 0 at highest_momentum, 1 at lowest_momentum."""
        raise NotImplementedError(f"{type(self).__name__} has no phase")

    def momentum(self, k: int, base: float, span: RunLength) -> float:
        if not self.cycle_momentum:
            return base
        return self.highest_momentum - (self.highest_momentum - self.lowest_momentum) * self.phase(self.moment(k, span))

    def check(self) -> None:
        super().check()
        low, high = self.lowest_momentum, self.highest_momentum
        require(0 <= low <= high, "lowest_momentum", low, f"between 0 and highest_momentum (={high})")


@dataclass
class Cyclic(_Cycle):
    """Up from lowest x lr to lr in `up` epochs, down again in `down`, over and over, as torch's CyclicLR.

    Smith 2017, arXiv 1506.01186, who advises 2 to 10 epochs for `up`. exp_range counts the run's steps, also stretched.
    The default momenta are one_cycle's, 0.85 and 0.95; those of torch's CyclicLR are 0.8 and 0.9.
    """

    name: str = "cyclic"
    lowest: float = 0.1  # lower bound, a fraction of lr, which is the upper bound
    up: float = 2.0  # epochs from the lower to the upper bound
    down: float | None = None  # epochs back to the lower bound; null: as up
    # triangular | triangular2: half the height with each cycle | exp_range: height x gamma^k at step k
    mode: str = "triangular"
    gamma: float = 1.0  # of mode=exp_range, a factor per step, in (0, 1]

    def phase(self, at: SchedulePoint) -> float:
        down = self.up if self.down is None else self.down
        cycle, t = divmod(at.t, self.up + down)
        height = t / self.up if t <= self.up else (self.up + down - t) / down
        if self.mode == "triangular2":
            height *= 0.5**cycle
        if self.mode == "exp_range":
            height *= self.gamma**at.k
        return height

    def check_span(self, span: RunLength) -> None:
        super().check_span(span)
        self.check_period("up", self.up, self.up + (self.up if self.down is None else self.down), span)

    def lr_factor(self, at: SchedulePoint) -> float:
        return self.lowest + (1 - self.lowest) * self.phase(at)

    def check(self) -> None:
        super().check()
        used = self.gamma == 1 or self.mode == "exp_range"
        require(used, "gamma", self.gamma, f"1 with mode {self.mode}, which does not use it")


@dataclass
class OneCycle(_Cycle):
    """Up from lr/div_factor to lr, then down to lr/div_factor/final_div_factor at the last step, as torch's OneCycleLR.

    Smith & Topin 2019, arXiv 1708.07120. The peak is at step pct_start x steps - 1, steps being the run's, or length's.
    three_phase: down to lr/div_factor as fast as up (the paper's form), and only then to the end.
    """

    name: str = "one_cycle"
    pct_start: float = 0.3  # part of the steps until the peak, in [0, 1]
    anneal: str = "cos"  # form of the rise and of the fall: cos | linear
    div_factor: float = 25.0  # the first lr is lr / div_factor
    final_div_factor: float = 1e4  # the last lr is lr / div_factor / final_div_factor
    three_phase: bool = False  # fall to lr / div_factor as fast as the rise, and only then to the last lr

    def lr_factor(self, at: SchedulePoint) -> float:
        start = 1 / self.div_factor
        return self._between([start, 1.0, start, start / self.final_div_factor], at)

    def phase(self, at: SchedulePoint) -> float:
        return self._between([0.0, 1.0, 0.0, 0.0], at)

    def _between(self, values: list[float], at: SchedulePoint) -> float:
        """The value at step at.k: values are reached at step 0 and at the ends of the (two or three) phases."""
        peak = self.pct_start * at.n - 1
        if self.three_phase:
            ends = [0.0, peak, 2 * peak, at.n - 1]
        else:
            ends, values = [0.0, peak, at.n - 1], [*values[:2], values[3]]
        i = next((i for i in range(1, len(ends)) if at.k <= ends[i]), len(ends) - 1)
        if at.k >= ends[i]:  # also for a phase without length, where torch divides by zero
            return values[i]
        x = (at.k - ends[i - 1]) / (ends[i] - ends[i - 1])
        if self.anneal == "cos":
            x = 0.5 * (1 - math.cos(math.pi * x))
        return values[i - 1] + (values[i] - values[i - 1]) * x

    def check(self) -> None:
        super().check()
        must = "at most 0.5 with three_phase: down takes as long as up"
        require(not self.three_phase or self.pct_start <= 0.5, "pct_start", self.pct_start, must)

    def check_span(self, span: RunLength) -> None:
        super().check_span(span)
        steps = self.moment(0, span).n
        if self.length is not None and not self.stretch:
            require(steps >= 2, "length", self.length, "at least 2 steps long, which a cycle needs")
        require(steps >= 2, "name", self.name, f"another one for a run of {steps} step: a cycle needs at least 2")
