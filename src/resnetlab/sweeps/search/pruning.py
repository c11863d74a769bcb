"""What a run does for its search: it tells every epoch's val_acc, and asks whether to go on."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optuna import Study, load_study, logging
from optuna.trial import FrozenTrial

from resnetlab.runs.summary import Row
from resnetlab.runs.sweep_records import SweepFolder
from resnetlab.sweeps.search.plan import Options
from resnetlab.sweeps.search.study import NAME, open_storage
from resnetlab.training.result import EpochHook


class TrialReporter:
    """Called with a run's rows after every epoch; whether the run shall stop.

    assignment: what the sweep's folder says of the job (`assignment_of`).
    """

    def __init__(self, assignment: dict[str, Any]) -> None:
        logging.set_verbosity(logging.ERROR)
        options = Options(**assignment["options"])
        storage = open_storage(Path(assignment["storage"]))
        self.study = load_study(study_name=NAME, storage=storage, pruner=options.make_pruner(assignment["epochs"]))
        self.number, self.warmup = assignment["trial"], options.warmup(assignment["epochs"])

    def __call__(self, rows: Sequence[Row]) -> bool:
        report(self.study, self.number, rows)
        if len(rows) < self.warmup:
            return False
        return self.study.pruner.prune(self.study, trial_until(self.study.trials[self.number], len(rows)))


def report(study: Study, number: int, rows: Sequence[Row]) -> None:
    """Tells the val_acc of the epochs that the trial does not have yet: step e is epoch e, from 1."""
    trial = study.trials[number]
    for row in rows:
        if (epoch := int(row["epoch"])) not in trial.intermediate_values:
            study._storage.set_trial_intermediate_value(trial._trial_id, epoch, row["val/acc"])


def trial_until(trial: FrozenTrial, epochs: int) -> FrozenTrial:
    """The trial as it was after so many epochs: a run that was killed may have told one more than it kept."""
    trial = copy.deepcopy(trial)
    trial.intermediate_values = {e: value for e, value in trial.intermediate_values.items() if e <= epochs}
    return trial


def trial_hook(folder: SweepFolder, number: int) -> EpochHook | None:
    """What may prune the job; None for one that belongs to no search, which then needs no Optuna."""
    assignment = folder.assignment(number)
    if assignment is None or assignment["options"]["pruner"] == "none":
        return None
    from resnetlab.sweeps.search.pruning import TrialReporter

    return TrialReporter(assignment)
