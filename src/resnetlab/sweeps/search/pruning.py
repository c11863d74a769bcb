"""Reports every epoch's val_acc of a trial to its search, from the process that trains it, and asks the pruner."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optuna import load_study

from resnetlab.runs.summary import Row
from resnetlab.sweeps.search.plan import Options
from resnetlab.sweeps.search.study import NAME, open_storage, report_epochs


class TrialReporter:
    """Called with a run's rows after every epoch; returns whether the run shall stop.

    assignment: of the job, from the sweep's folder.
    """

    def __init__(self, assignment: dict[str, Any]) -> None:
        options, epochs = Options(**assignment["options"]), assignment["epochs"]
        self.storage = open_storage(Path(assignment["storage"]))
        self.study = load_study(study_name=NAME, storage=self.storage, pruner=options.make_pruner(epochs))
        self.number, self.warmup = assignment["trial"], options.warmup(epochs)

    def __call__(self, rows: Sequence[Row]) -> bool:
        trial = copy.deepcopy(report_epochs(self.storage, self.number, rows))
        if len(rows) < self.warmup:
            return False
        reported = trial.intermediate_values  # a run that was killed may have reported one more than it kept
        trial.intermediate_values = {epoch: value for epoch, value in reported.items() if epoch <= len(rows)}
        return self.study.pruner.prune(self.study, trial)
