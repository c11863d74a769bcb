"""Learning-rate schedules: pure functions of time, each one dataclass that is also its configuration.

`SCHEDULES[name]` is the class; `schedule_table(schedule, lr, momentum, span)` all values of a run; `length_warning`
warns of a run that is too short. `ReduceOnPlateau` alone has state and builds torch's scheduler.
"""

from resnetlab.optim.schedules import cyclic, decay_and_piecewise, special
from resnetlab.optim.schedules.base import RunLength, Schedule, length_warning, schedule_table
from resnetlab.optim.schedules.special import ReduceOnPlateau

__all__ = ["SCHEDULES", "ReduceOnPlateau", "RunLength", "Schedule", "length_warning", "schedule_table"]

_FOUND = vars(cyclic) | vars(decay_and_piecewise) | vars(special)
_CLASSES = [cls for _, cls in sorted(_FOUND.items()) if isinstance(cls, type) and issubclass(cls, Schedule)]
SCHEDULES: dict[str, type[Schedule]] = {cls.name: cls for cls in _CLASSES if cls.name != Schedule.name}
