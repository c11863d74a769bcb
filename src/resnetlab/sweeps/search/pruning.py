"""When a search prunes: its pruner, and the epoch's end of a trial, in the process that trains it."""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optuna import load_study
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner

from hydra_plugins.resnetlab_sweepers import OptunaConf
from resnetlab.runs.summary import Row
from resnetlab.sweeps.search.study import NAME, open_storage, report_epochs


def warmup(options: OptunaConf, epochs: int) -> int:
    """The epochs that every run is trained. epochs: of the longest run."""
    return min(epochs, options.warmup_epochs or math.ceil(epochs / 3))


def make_pruner(options: OptunaConf, epochs: int) -> BasePruner:
    """The pruner, whose steps are epochs from 1. epochs: of the longest run."""
    least = warmup(options, epochs)
    if options.pruner == "median":
        return MedianPruner(n_startup_trials=options.startup_trials, n_warmup_steps=least)
    if options.pruner == "asha":
        return SuccessiveHalvingPruner(min_resource=least)
    if options.pruner == "hyperband":
        return HyperbandPruner(min_resource=least, max_resource=epochs)
    return NopPruner()


class TrialReporter:
    """Called with a run's rows after every epoch, reports val_acc; returns whether the run shall stop.

    assignment: of the job, from the sweep's folder.
    """

    def __init__(self, assignment: dict[str, Any]) -> None:
        options, epochs = OptunaConf(**assignment["options"]), assignment["epochs"]
        self.storage = open_storage(Path(assignment["storage"]))
        self.study = load_study(study_name=NAME, storage=self.storage, pruner=make_pruner(options, epochs))
        self.number, self.warmup = assignment["trial"], warmup(options, epochs)

    def __call__(self, rows: Sequence[Row]) -> bool:
        trial = copy.deepcopy(report_epochs(self.storage, self.number, rows))
        if len(rows) < self.warmup:
            return False
        reported = trial.intermediate_values  # a run that was killed may have reported one more than it kept
        trial.intermediate_values = {epoch: value for epoch, value in reported.items() if epoch <= len(rows)}
        return self.study.pruner.prune(self.study, trial)
