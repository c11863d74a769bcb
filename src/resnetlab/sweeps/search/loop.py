"""The search: asks for trials, has Hydra's launcher run them, reports the outcomes to Optuna; resumes after any end."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna import Study
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from resnetlab.config.compose import compose
from resnetlab.config.messages import USAGE_ERRORS
from resnetlab.console import TRAIN_COMMAND, say
from resnetlab.runs.files import digest, read_rows
from resnetlab.runs.layout import METRICS
from resnetlab.runs.sweep_records import Outcome
from resnetlab.sweeps.run_job import SweepTask, failure, record
from resnetlab.sweeps.search import journal
from resnetlab.sweeps.search.plan import SearchPlan
from resnetlab.training.result import print_line


class Search:
    """One launch of a search. study, storage: within `opened`. number: the next job's."""

    study: Study
    storage: JournalStorage
    sweeper: Any  # Hydra's plugin, with its launcher
    task: SweepTask

    def __init__(self, plan: SearchPlan) -> None:
        self.plan, self.configs, self.jobs = plan, [plan.config], ()
        self.number = 0

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Opens the study under its lock. Raises RunLocked; ConfigError if the storage is damaged or another one's."""
        if self.plan.storage.exists():
            journal.open_study(self.plan, write=False)
        with journal.search_lock(self.plan):
            self.study, self.storage = journal.open_study(self.plan)
            # Hyperband's changes the sampling
            self.study.pruner = journal.make_pruner(self.plan.options, self.plan.epochs)
            yield

    @property
    def trials_left(self) -> int:
        """The trials still to be asked for. One that failed for a reason of the machine's is not counted."""
        counted = journal.count_trials(self.study)
        return self.plan.options.n_trials - counted.total() + counted["failed"]

    @property
    def unfinished(self) -> bool:
        return self.trials_left > 0 or journal.count_trials(self.study)["not ended"] > 0

    def run(self, sweeper: Any, task: SweepTask) -> None:
        """Runs first the trials that a kill has left running, then what is missing, `at_once` at a time."""
        self.sweeper, self.task = sweeper, task
        left = [trial.number for trial in journal.asked_trials(self.study) if trial.state == TrialState.RUNNING]
        for trial in self.trials_in(TrialState.RUNNING):
            if trial.number not in left:  # half asked: its parameters are drawn again, by the same sampler
                self.study.tell(trial.number, state=TrialState.FAIL)
        to_ask, trials = self.trials_left, journal.asked_trials(self.study)
        again = {trial.user_attrs.get("again") for trial in (*trials, *self.trials_in(TrialState.WAITING))}
        for trial in trials:  # the parameters of those that failed go to the head of the queue, once each
            if trial.state == TrialState.FAIL and "refused" not in trial.user_attrs and trial.number not in again:
                self.study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
        while left or to_ask > 0:
            batch, left = left[: self.plan.at_once], left[self.plan.at_once :]
            if not batch:
                batch = [self.ask() for _ in range(min(self.plan.at_once, to_ask))]
                to_ask -= len(batch)
            self.run_batch(batch)
            self.say_progress()

    def ask(self) -> int:
        """The number of a new trial. Its sampler is seeded by (seed, trials asked before), so it can go on."""
        asked, options = len(journal.asked_trials(self.study)), self.plan.options
        seed = int(digest([options.seed, asked + len(self.trials_in(TrialState.WAITING))]), 16)
        tpe = TPESampler(seed=seed, n_startup_trials=options.startup_trials)
        self.study.sampler = RandomSampler(seed=seed) if options.sampler == "random" else tpe
        return self.study.ask(self.plan.space.distributions).number

    def trials_in(self, state: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(state,))

    def run_batch(self, trials: Sequence[int]) -> None:
        """Trains the trials at once, as far as there are configurations for them, and reports to the study."""
        ready = []
        for trial in trials:
            overrides = self.plan.space.job(self.study.trials[trial].params)
            try:
                compose(*overrides)
                ready.append((trial, overrides))
            except USAGE_ERRORS as error:
                self.refuse(trial, error)
        first = self.number
        for trial, _ in ready:
            self.assign(trial)
        if ready:
            self.sweeper.launcher.launch([overrides for _, overrides in ready], initial_job_idx=first)
        outcomes = self.task.folder.outcomes()
        for number, (trial, _) in enumerate(ready, first):
            self.finish(trial, outcomes.get(number))

    def refuse(self, trial: int, error: Exception) -> None:
        """A combination that the lab refuses: counted, and not tried again."""
        outcome, number = failure(error, self.task.folder.log(self.number)), self.number
        record(self.task.folder, number, outcome, self.assign(trial))
        self.storage.set_trial_user_attr(journal.trial_id(self.storage, trial), "refused", outcome.reason)
        self.study.tell(trial, state=TrialState.FAIL)

    def assign(self, trial: int) -> str:
        """Makes the trial the next job, whose label it returns."""
        params = self.study.trials[trial].params
        values = ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in params.items())
        self.task.labels[self.number] = label = f"trial {trial}: {values}"
        assignment = {"label": label, "trial": trial, "storage": str(self.plan.storage), "epochs": self.plan.epochs}
        self.task.folder.assign(self.number, {**assignment, "options": vars(self.plan.options)})
        self.number += 1
        return label

    def finish(self, trial: int, outcome: Outcome | None) -> None:
        """Reports the outcome to the study, and the epochs that a process could not report, or had no need to train."""
        if outcome is None or outcome.status == "failed" or (outcome.status == "skipped" and outcome.objective is None):
            self.study.tell(trial, state=TrialState.FAIL)
            return
        journal.report_epochs(self.storage, trial, read_rows(Path(outcome.folder) / METRICS))
        if outcome.status == "pruned":
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, outcome.value)

    def say_progress(self) -> None:
        counted, config = journal.count_trials(self.study), self.plan.config
        ended = counted["complete"] + counted["pruned"] + counted["refused"]
        so_far = f", best {config.objective} {self.study.best_value:.4f}" if counted["complete"] else ""
        print_line(config, f"search: {ended} of {self.plan.options.n_trials} trials done{so_far}")

    def conclude(self) -> None:
        """Prints how far the search is, which trial is best, and how to repeat it."""
        counted, n_trials = journal.count_trials(self.study), self.plan.options.n_trials
        parts = ", ".join(f"{counted[status]} {status}" for status in journal.STATUSES if counted[status])
        say(f"search: {parts} of {n_trials} trials; {self.plan.storage}")
        if counted["complete"]:
            best = self.study.best_trial
            say(f"best: trial {best.number}, {self.plan.config.objective} {best.value:.4f}; to repeat it:")
            say(f"  {TRAIN_COMMAND} {shlex.join(self.plan.space.job(best.params))}")
