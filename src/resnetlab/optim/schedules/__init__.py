"""Learning-rate schedules: pure functions of time, each one dataclass that is also its configuration.

`SCHEDULES[name]` is the class; `schedule_table(schedule, lr, momentum, span)` all values of a run; `length_warning`
warns of a run that is too short. `ReduceOnPlateau` alone has state and builds torch's scheduler.
"""

from resnetlab.optim.schedules.base import RunLength, Schedule, length_warning, schedule_table
from resnetlab.optim.schedules.cyclic import Cyclic, OneCycle
from resnetlab.optim.schedules.decay_and_piecewise import (
    Constant,
    Cosine,
    CosineRestarts,
    Exponential,
    InverseSqrt,
    MultiStep,
    PiecewiseConstant,
    PiecewiseLinear,
    Polynomial,
    Step,
    WarmupStableDecay,
)
from resnetlab.optim.schedules.special import Lambda, ReduceOnPlateau

__all__ = ["SCHEDULES", "ReduceOnPlateau", "RunLength", "Schedule", "length_warning", "schedule_table"]

_CLASSES: list[type[Schedule]] = [Constant, Cosine, CosineRestarts, Cyclic, Exponential, InverseSqrt, Lambda, MultiStep]
_CLASSES += [OneCycle, PiecewiseConstant, PiecewiseLinear, Polynomial, ReduceOnPlateau, Step, WarmupStableDecay]
SCHEDULES: dict[str, type[Schedule]] = {schedule.name: schedule for schedule in _CLASSES}
