"""The search in Optuna: its journal on disk, under a lock that a kill releases; its trials; and when it prunes.

Why not SQLite, nor the journal's own locks: docs/decisions.md.
"""

import copy
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from optuna import Study, create_study, get_all_study_names, load_study, logging
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from hydra_plugins.resnetlab_sweepers import OptunaConf
from resnetlab.errors import ConfigError, RunLocked, first_line
from resnetlab.runs.summary import Row
from resnetlab.sweeps.search.plan import SearchPlan

NAME = "search"  # of the one study in the file
LOCK_TIMEOUT = 3.0  # seconds: for a search that is just ending
BEGINNING = b'{"op_code"'  # of every line that Optuna writes
STATUSES = ("complete", "pruned", "refused", "failed", "not ended")


def open_storage(path: Path, write: bool = True) -> JournalStorage:
    """The journal, made if it is missing. Raises ConfigError if it is damaged or another kind of file.

    write=False: of a file that is there, to look at it without the files that lock it.
    """
    logging.set_verbosity(logging.ERROR)
    lock: Any = FileLock(f"{path}.held") if write else None  # .lock is the name of Optuna's own
    try:
        with lock or nullcontext():
            check_lines(path, mend=write)
        return JournalStorage(JournalFileBackend(str(path), lock))
    except Exception as error:  # Optuna replays whatever stands there
        again = "the same command makes the same search again and skips the runs that are finished"
        cure = f"move it away, and {again}; or take another hydra.sweeper.storage"
        text = f"the search's storage {path} cannot be read or is damaged ({first_line(error)}); {cure}"
        raise ConfigError(text) from None


def check_lines(path: Path, mend: bool) -> None:
    """Raises ValueError for what is no journal of Optuna's.

    mend: cuts off half a line at the end, which a machine that went down leaves: Optuna would write on behind it.
    """
    if not path.exists():
        return
    with path.open("rb+" if mend else "rb") as file:
        content = file.read(-1 if mend else len(BEGINNING))
        if content and not content.startswith(BEGINNING):
            raise ValueError("it is not a journal of Optuna's")
        if mend and content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
            os.fsync(file.fileno())


def open_study(plan: SearchPlan, write: bool = True) -> tuple[Any, JournalStorage]:
    """The search as far as it is, a Study. Raises ConfigError if the storage holds another one.

    write=False: to look before anything is written beside a user's file; None for the study where there is none.
    """
    storage = open_storage(plan.storage, write)
    names = get_all_study_names(storage)
    if not names and not write:
        return None, storage
    if not names:
        create_study(storage=storage, study_name=NAME, direction="maximize")
    elif NAME not in names:
        cure = "take another hydra.sweeper.storage"
        raise ConfigError(f"{plan.storage} holds studies of somebody else's ({names[0]}); {cure}")
    study = load_study(study_name=NAME, storage=storage)
    known, signature = study.user_attrs.get("signature"), json.loads(json.dumps(plan.signature))
    if known != signature and (known is not None or study.trials):
        cure = "take another hydra.sweeper.storage, or leave it out"
        raise ConfigError(f"{plan.storage} belongs to another search ({difference(known or {}, signature)}); {cure}")
    if write and known is None:
        study.set_user_attr("signature", signature)
    return study, storage


def difference(known: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The first thing in which two searches differ."""
    for part, ours in wanted.items():
        theirs = known.get(part, {})
        for key in sorted({*ours, *theirs}):
            there, here = (side.get(key, "not searched" if part == "space" else "default") for side in (theirs, ours))
            if there != here:
                return f"{key}: there {there}, here {here}"
    return "by another version"


@contextmanager
def search_lock(plan: SearchPlan) -> Iterator[None]:
    """Held by the one process that opens the study, asks and tells. Raises RunLocked if there is one."""
    path = plan.storage.with_name(plan.storage.name + ".running")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(path).acquire(timeout=LOCK_TIMEOUT)
    except Timeout:
        raise RunLocked(f"{plan.storage}: the search is going on in another process; wait for it or stop it") from None
    except OSError as error:
        raise ConfigError(f"the search's storage {plan.storage} cannot be used: {first_line(error)}") from None
    with held:
        yield


def trial_id(storage: JournalStorage, number: int) -> int:
    """The storage's key of the trial."""
    return storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(NAME), number)


def report_epochs(storage: JournalStorage, number: int, rows: Sequence[Row]) -> FrozenTrial:
    """Reports the val_acc of the epochs that the trial does not have yet: step e is epoch e, from 1. Returns it."""
    key = trial_id(storage, number)
    known = storage.get_trial(key).intermediate_values
    for row in rows:
        if (epoch := int(row["epoch"])) not in known:
            storage.set_trial_intermediate_value(key, epoch, row["val/acc"])
    return storage.get_trial(key)


def asked_trials(study: Study) -> list[FrozenTrial]:
    """All trials but those that wait for their turn, and those that a kill left half asked.

    Optuna writes a trial's parameters one after the other; one without some of them has failed, or will (`run`).
    """
    space = study.user_attrs["signature"]["space"].keys()
    trials = study.get_trials(deepcopy=False)
    return [t for t in trials if t.state != TrialState.WAITING and t.params.keys() >= space]


def count_trials(study: Study) -> Counter[str]:
    """How many trials have which status; one that was tried again has that of its repetition.

    failed: for a reason of the machine's, and to be tried again.
    """
    trials = asked_trials(study)
    again = {trial.user_attrs.get("again") for trial in trials}
    return Counter(trial_status(trial) for trial in trials if trial.number not in again)


def trial_status(trial: FrozenTrial) -> str:
    if trial.state == TrialState.RUNNING:
        return "not ended"
    if trial.state == TrialState.FAIL:
        return "refused" if "refused" in trial.user_attrs else "failed"
    return trial.state.name.lower()


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
