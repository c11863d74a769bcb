"""seeds=auto: rounds of further seeds, for the configurations of a sweep that are not told apart yet."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from omegaconf import DictConfig

from resnetlab.config.overrides import compose_jobs, parse_overrides, split_sweep
from resnetlab.config.schema import Config
from resnetlab.console import say
from resnetlab.errors import ConfigError, LabError, require, require_one_of
from resnetlab.report.sequential import FEWEST, MOST, assess, half_widths
from resnetlab.runs.sweep_records import Outcome
from resnetlab.sweeps.run_job import SweepTask
from resnetlab.sweeps.table import aligned


class SeedRounds:
    """A sweep until it is decided, checked. values: objectives by seed. jobs: begun. dropped: why one is out.

    What is next depends on results alone, so the same command again comes to the same verdicts.
    """

    opened, unfinished = nullcontext, True

    def __init__(self, overrides: Sequence[str], options: DictConfig) -> None:
        """options: a SeedsConf. Raises ConfigError or one of Hydra's errors."""
        self.labels, self.configs = zip(*compose_jobs(overrides, multirun=True), strict=True)
        if len({c.folder.path for c in self.configs if c.seed == 0}) < max(2, len(self.configs)):
            raise ConfigError("seeds=auto needs different configurations, and no other seeds: -m wd=0.1,0.2 seeds=auto")
        alpha, least, most = options.alpha, options.least_difference, options.max_seeds
        require(FEWEST <= most <= MOST, "hydra.sweeper.max_seeds", most, f"be in {FEWEST}..{MOST}")
        require_one_of("hydra.sweeper.baseline", options.baseline, ("best", *self.labels))
        self.options, self.jobs, self.dropped = options, list[tuple[str, Config]](), dict[int, str]()
        self.values = {place: list[float]() for place in range(len(self.labels))}
        self.baseline = self.labels.index(options.baseline) if options.baseline in self.labels else None
        pairs = (len(self.labels) - 1) * (len(self.labels) / 2 if self.baseline is None else 1)
        self.assess = partial(assess, self.values, half_widths(alpha / pairs, most), least, self.baseline)

    def run(self, sweeper: Any, task: SweepTask) -> None:
        """Trains the seeds that are wanted until none is, those of a round by one call of the launcher."""
        swept = (f"{key}={values}" for key, values in (self.options.params or {}).items())
        batches = split_sweep(parse_overrides([*swept, *sweeper.arguments]))
        while wanted := self.assess()[-1]:
            todo = [(place, seed) for place, n in wanted.items() for seed in range(len(self.values[place]), n)]
            first = len(self.jobs)
            self.jobs += [(f"{self.labels[p]}, seed={seed}", replace(self.configs[p], seed=seed)) for p, seed in todo]
            task.labels = {number: label for number, (label, _) in enumerate(self.jobs)}
            task.folder.write_plan(self.jobs)
            sweeper.launcher.launch([[*batches[p], f"seed={seed}"] for p, seed in todo], initial_job_idx=first)
            outcomes = task.folder.outcomes()
            for number, (place, seed) in enumerate(todo, first):
                end = outcomes.get(number, Outcome("failed", reason="no outcome"))
                if end.status == "skipped" and end.objective is None:
                    cure = "nothing is decided; give the command again later"
                    raise LabError(f"{task.labels[number]} {end.reason}: {cure}")
                if end.diverged or end.objective is None:
                    why = "diverged" if end.diverged else end.reason
                    self.dropped.setdefault(place, f"dropped: seed {seed}: {why}")
                    self.values.pop(place, None)
                elif place in self.values:
                    self.values[place].append(end.objective)

    def conclude(self) -> None:
        """Prints what is decided: a line for each configuration, with the interval that decided."""
        best, verdicts, _ = self.assess()
        rows = [(f"alpha {self.options.alpha:g}", "verdict", self.configs[0].objective, "")]
        for place, label in enumerate(self.labels):
            role = "not compared" if place != best else "best" if self.baseline is None else "baseline"
            rows.append((label, self.dropped.get(place, role), "", ""))
            if found := verdicts.get(place):
                verdict = f"{found.relation or 'not told apart from'} {self.labels[found.other]}"
                low, high = found.difference - found.half, found.difference + found.half
                rows[-1] = label, verdict, f"{found.difference:+.4f} ({low:+.4f} to {high:+.4f})", f"n = {found.n}"
        for line in aligned(rows):
            say(line)
