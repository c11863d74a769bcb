"""The search itself: asks for trials, has a launcher run them, tells what became of them. It goes on after any end."""

import math
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from resnetlab.config.compose import parse
from resnetlab.config.messages import REFUSALS, error_message, print_error
from resnetlab.console import say
from resnetlab.errors import LabError
from resnetlab.runs.files import read_rows
from resnetlab.runs.layout import METRICS
from resnetlab.runs.sweep_records import Outcome, SweepFolder
from resnetlab.sweeps import jobs
from resnetlab.sweeps.attempt import failure
from resnetlab.sweeps.search.figures import draw
from resnetlab.sweeps.search.plan import SearchPlan, make_plan
from resnetlab.sweeps.search.pruning import report
from resnetlab.sweeps.search.study import STANDINGS, count_trials, finish_asking, open_study, search_lock

prepared: list[tuple[SearchPlan, Study]] = []  # by the front door, which has checked it and holds its lock


def search(sweeper: Any, arguments: Sequence[str]) -> None:
    """Runs what is missing of the search. sweeper: the plugin, with Hydra's context, configuration and launcher."""
    try:
        if prepared:
            Search(sweeper, *prepared[-1]).run()
            return
        plan = make_plan([*arguments, *sweeper.config.hydra.overrides.hydra])  # Hydra was called by somebody else
        with search_lock(plan):
            Search(sweeper, plan, open_study(plan)).run()
    except (LabError, OSError) as error:
        raise SystemExit(print_error(error)) from None


def trials_left(plan: SearchPlan, study: Study) -> int:
    """The trials still to be asked for. What failed for a reason of the machine's is tried again, and not counted."""
    counted = count_trials(study)
    return plan.options.n_trials - counted.total() + counted["failed"]


class Search:
    """One launch of a search. number: the next job's."""

    def __init__(self, sweeper: Any, plan: SearchPlan, study: Study) -> None:
        self.sweeper, self.plan, self.study = sweeper, plan, study
        self.folder = SweepFolder.current() or SweepFolder.open(plan.config.study)
        self.number = 0

    def run(self) -> None:
        """First the trials that a kill has left running, then what is missing, `at_once` at a time."""
        left = [self.take_up(trial) for trial in self.study.get_trials(states=(TrialState.RUNNING,))]
        to_ask = trials_left(self.plan, self.study)
        self.renew()
        while left or to_ask > 0:
            batch, left = left[: self.plan.at_once], left[self.plan.at_once :]
            if not batch:
                batch = [self.ask() for _ in range(min(self.plan.at_once, to_ask))]
                to_ask -= len(batch)
            self.run_batch(batch)
            self.say()

    def renew(self) -> None:
        """Puts the parameters of trials that failed at the head of the queue, once each."""
        trials = self.study.get_trials()
        again = {trial.user_attrs.get("again") for trial in trials}
        for trial in trials:
            if trial.state == TrialState.FAIL and "refused" not in trial.user_attrs and trial.number not in again:
                self.study.enqueue_trial(trial.params, user_attrs={"again": trial.number})

    def ask(self) -> int:
        """The number of a new trial."""
        self.study.sampler = self.plan.options.make_sampler(len(self.study.get_trials(deepcopy=False)))
        return self.study.ask(self.plan.space.distributions).number

    def take_up(self, trial: FrozenTrial) -> int:
        """The number of a trial that a kill has left running, and may have kept from its parameters."""
        self.study.sampler = self.plan.options.make_sampler(trial.number)
        finish_asking(self.study, trial, self.plan.space.distributions)
        return trial.number

    def run_batch(self, trials: Sequence[int]) -> None:
        """Trains the trials at once, as far as there are configurations for them, and tells the study."""
        ready = []
        for trial in trials:
            overrides = self.plan.space.job(self.study.trials[trial].params)
            try:
                parse(self.sweeper.context.config_loader.load_sweep_config(self.sweeper.config, overrides))
                ready.append((trial, overrides))
            except REFUSALS as error:
                self.refuse(trial, error)
        first = self.number
        for trial, _ in ready:
            self.assign(trial)
        if ready:
            self.sweeper.launcher.launch([overrides for _, overrides in ready], initial_job_idx=first)
        outcomes = self.folder.outcomes()
        for number, (trial, _) in enumerate(ready, first):
            self.tell(trial, outcomes.get(number))

    def refuse(self, trial: int, error: Exception) -> None:
        """A combination that the lab refuses: counted, and not tried again."""
        number, outcome = self.number, failure(error, error_message(error), self.folder.log(self.number))
        jobs.fail_job(self.folder, number, self.assign(trial), outcome)
        frozen = self.study.trials[trial]
        self.study._storage.set_trial_user_attr(frozen._trial_id, "refused", outcome.reason)
        self.study.tell(trial, state=TrialState.FAIL)

    def assign(self, trial: int) -> str:
        """Makes the trial the next job, whose label it returns."""
        values = ", ".join(f"{key}={short(value)}" for key, value in self.study.trials[trial].params.items())
        label = f"trial {trial}: {values}"
        options, storage = vars(self.plan.options), str(self.plan.storage)
        assignment = {"label": label, "trial": trial, "storage": storage, "epochs": self.plan.epochs}
        self.folder.assign(self.number, {**assignment, "options": options})
        self.number += 1
        return label

    def tell(self, trial: int, outcome: Outcome | None) -> None:
        """Also the epochs that a process could not report, or had no need to train."""
        if outcome is None or outcome.status == "failed" or (outcome.status == "skipped" and outcome.objective is None):
            self.study.tell(trial, state=TrialState.FAIL)
            return
        report(self.study, trial, read_rows(Path(outcome.folder) / METRICS))
        if outcome.status == "pruned":
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, outcome.value)

    def say(self) -> None:
        if self.plan.config.trainer.progress != "off":
            counted = count_trials(self.study)
            ended = counted["complete"] + counted["pruned"] + counted["refused"]
            so_far = f", best {self.plan.config.objective} {self.study.best_value:.4f}" if counted["complete"] else ""
            say(f"search: {ended} of {self.plan.options.n_trials} trials done{so_far}")


def short(value: Any) -> str:
    """Four digits of a number, for reading."""
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else str(value)


class SearchSession:
    """A search that makes sense. Raises ConfigError, or one of Hydra's errors, if it does not.

    Within `alone`: study: as far as it is. unfinished: whether there is something left to do.
    """

    study: Study
    unfinished: bool

    def __init__(self, overrides: Sequence[str]) -> None:
        self.plan: SearchPlan = make_plan(overrides)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """This is the search that Hydra's sweeper finds, and no other process's at the same time.

        Raises Busy, or ConfigError if the storage is damaged or another search's.
        """
        with search_lock(self.plan):
            self.study = open_study(self.plan)
            self.unfinished = trials_left(self.plan, self.study) > 0 or count_trials(self.study)["not ended"] > 0
            prepared.append((self.plan, self.study))
            try:
                yield
            finally:
                prepared.pop()

    def conclude(self) -> None:
        """Says how far the search is, which trial is best and how to repeat it, and draws the pictures."""
        counted = count_trials(self.study)
        said = [f"{counted[name]} {name}" for name in STANDINGS if counted[name]]
        say(f"search: {', '.join(said)} of {self.plan.options.n_trials} trials; {self.plan.storage}")
        if counted["complete"]:
            self.say_best(self.study.best_trial)
            paths = draw(self.plan, self.study)
            say(f"pictures: {', '.join(path.name for path in paths)} in {self.plan.folder}")

    def say_best(self, best: FrozenTrial) -> None:
        say(f"best: trial {best.number}, {self.plan.config.objective} {best.value:.4f}; to repeat it:")
        say(f"  {shlex.join(['python', 'train.py', *self.plan.space.job(best.params)])}")
