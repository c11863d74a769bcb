"""Learning-rate schedules: pure functions of time, each one dataclass that is also its configuration.

`SCHEDULES[name]` is the class; `table(schedule, lr, momentum, span)` all values of a run; `shortfall` warns of a run
that is too short. `ReduceOnPlateau` alone has state and builds torch's scheduler.
"""

from resnetlab.schedules.base import Moment, Schedule, Span, shortfall, table
from resnetlab.schedules.cycle import Cyclic, OneCycle
from resnetlab.schedules.decay import Cosine, CosineRestarts, Exponential, MultiStep, Polynomial, Step
from resnetlab.schedules.piecewise import Constant, PiecewiseConstant, PiecewiseLinear
from resnetlab.schedules.special import Lambda, ReduceOnPlateau

__all__ = [  # noqa: RUF022 (plain sorting)
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Cyclic",
    "Exponential",
    "Lambda",
    "Moment",
    "MultiStep",
    "OneCycle",
    "PiecewiseConstant",
    "PiecewiseLinear",
    "Polynomial",
    "ReduceOnPlateau",
    "SCHEDULES",
    "Schedule",
    "Span",
    "Step",
    "shortfall",
    "table",
]

SCHEDULES: dict[str, type[Schedule]] = {
    schedule.name: schedule
    for schedule in (
        Constant,
        Cosine,
        CosineRestarts,
        Cyclic,
        Exponential,
        Lambda,
        MultiStep,
        OneCycle,
        PiecewiseConstant,
        PiecewiseLinear,
        Polynomial,
        ReduceOnPlateau,
        Step,
    )
}
