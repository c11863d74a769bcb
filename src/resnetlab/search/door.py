"""What the front door needs of a search: everything checked before it starts, and what is said at its end."""

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from resnetlab.search.figures import draw
from resnetlab.search.loop import missing, prepared
from resnetlab.search.plan import Plan, make_plan
from resnetlab.search.storage import open_study, search_lock
from resnetlab.speech import speak

__all__ = ["Door"]


class Door:
    """A search that can begin or go on. Raises ConfigError, or one of Hydra's errors, if it cannot."""

    def __init__(self, overrides: Sequence[str]) -> None:
        self.plan: Plan = make_plan(overrides)
        self.study: Study = open_study(self.plan)
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        self.unfinished = bool(running) or missing(self.plan, self.study) > 0

    @contextmanager
    def alone(self) -> Iterator[None]:
        """This is the search that Hydra's sweeper finds, and no other process's at the same time. Raises Busy."""
        with search_lock(self.plan):
            prepared.append((self.plan, self.study))
            try:
                yield
            finally:
                prepared.pop()

    def conclude(self) -> None:
        """Says how far the search is, which trial is best and how to repeat it, and draws the pictures."""
        trials = self.study.get_trials()
        states = Counter(trial.state.name.lower() for trial in trials)
        names = {"complete": "complete", "pruned": "pruned", "fail": "failed", "running": "not ended"}
        counted = ", ".join(f"{states[state]} {name}" for state, name in names.items() if states[state])
        speak(f"search: {counted} of {self.plan.options.n_trials} trials; {self.plan.storage}")
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        if complete:
            self.say_best(self.study.best_trial)
            paths = draw(self.plan, self.study)
            speak(f"pictures: {', '.join(path.name for path in paths)} in {self.plan.folder}")

    def say_best(self, best: FrozenTrial) -> None:
        speak(f"best: trial {best.number}, {self.plan.config.objective} {best.value:.4f}; to repeat it:")
        speak(f"  {shlex.join(['python', 'train.py', *self.plan.space.job(best.params)])}")
