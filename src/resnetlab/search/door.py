"""What the front door needs of a search: everything checked before it starts, and what is said at its end."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from optuna import Study
from optuna.trial import FrozenTrial

from resnetlab.search.figures import draw
from resnetlab.search.loop import missing, prepared
from resnetlab.search.plan import Plan, make_plan
from resnetlab.search.storage import open_study, search_lock
from resnetlab.search.trials import STANDINGS, tally
from resnetlab.speech import speak

__all__ = ["Door"]


class Door:
    """A search that makes sense. Raises ConfigError, or one of Hydra's errors, if it does not.

    Within `alone`: study: as far as it is. unfinished: whether there is something left to do.
    """

    study: Study
    unfinished: bool

    def __init__(self, overrides: Sequence[str]) -> None:
        self.plan: Plan = make_plan(overrides)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """This is the search that Hydra's sweeper finds, and no other process's at the same time.

        Raises Busy, or ConfigError if the storage is damaged or another search's.
        """
        with search_lock(self.plan):
            self.study = open_study(self.plan)
            self.unfinished = missing(self.plan, self.study) > 0 or tally(self.study)["not ended"] > 0
            prepared.append((self.plan, self.study))
            try:
                yield
            finally:
                prepared.pop()

    def conclude(self) -> None:
        """Says how far the search is, which trial is best and how to repeat it, and draws the pictures."""
        counted = tally(self.study)
        said = [f"{counted[name]} {name}" for name in STANDINGS if counted[name]]
        speak(f"search: {', '.join(said)} of {self.plan.options.n_trials} trials; {self.plan.storage}")
        if counted["complete"]:
            self.say_best(self.study.best_trial)
            paths = draw(self.plan, self.study)
            speak(f"pictures: {', '.join(path.name for path in paths)} in {self.plan.folder}")

    def say_best(self, best: FrozenTrial) -> None:
        speak(f"best: trial {best.number}, {self.plan.config.objective} {best.value:.4f}; to repeat it:")
        speak(f"  {shlex.join(['python', 'train.py', *self.plan.space.job(best.params)])}")
