"""The search on disk: Optuna's journal, one line for everything that happens, under a lock that a kill releases.

Not SQLite, which is another half second of imports in every worker and is not safe on a shared disk; and not the
journal's own locks, which a process that is killed leaves behind for half a minute.
"""

import copy
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from optuna import Study, create_study, get_all_study_names, load_study, logging
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from resnetlab.errors import ConfigError, RunLocked, first_line
from resnetlab.sweeps.search.plan import SearchPlan

NAME = "search"  # of the one study in the file
PATIENCE_SECONDS = 3.0  # for a search that is just ending
BEGINNING = b'{"op_code"'  # of every line that Optuna writes


class FlockAdapter:
    """The lock of the runs' folders: the system takes it from a process that dies."""

    def __init__(self, path: Path) -> None:
        self.lock = FileLock(f"{path}.held")  # .lock is the name of Optuna's own

    def acquire(self) -> bool:
        self.lock.acquire()
        return True

    def release(self) -> None:
        self.lock.release()


def open_storage(path: Path) -> JournalStorage:
    """The journal, made if it is missing. Raises ConfigError if it is damaged or another kind of file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FlockAdapter(path)
        with lock.lock:
            truncate_partial_line(path)
        return JournalStorage(JournalFileBackend(str(path), lock))  # type: ignore[arg-type]
    except OSError as error:
        raise storage_error(path, error) from None
    except Exception as error:  # Optuna replays whatever stands there
        raise ConfigError(
            f"the search's storage {path} is damaged ({first_line(error)}); move it away, and the same command "
            f"makes the same search again and skips the runs that are finished; or take another hydra.sweeper.storage"
        ) from None


def truncate_partial_line(path: Path) -> None:
    """Cuts off half a line at the end, which a machine that went down leaves: Optuna would write on behind it."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        if content and not content.startswith(BEGINNING):
            raise ValueError("it is not a journal of Optuna's")
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
            os.fsync(file.fileno())


def open_study(plan: SearchPlan) -> Study:
    """The search as far as it is. Raises ConfigError if the storage holds another one."""
    logging.set_verbosity(logging.ERROR)
    storage = open_storage(plan.storage)
    if NAME not in (names := get_all_study_names(storage)) and not names:
        create_study(storage=storage, study_name=NAME, direction="maximize")
    elif NAME not in names:
        raise ConfigError(
            f"{plan.storage} holds studies of somebody else's ({names[0]}); take another hydra.sweeper.storage"
        )
    study = load_study(study_name=NAME, storage=storage, pruner=plan.options.make_pruner(plan.epochs))
    signature = json.loads(json.dumps(plan.signature))
    if (known := study.user_attrs.get("signature")) is None and not study.trials:
        study.set_user_attr("signature", signature)
    elif known != signature:
        raise ConfigError(
            f"{plan.storage} belongs to another search ({difference(known or {}, signature)}); "
            f"take another hydra.sweeper.storage, or leave it out"
        )
    return study


def difference(known: dict, wanted: dict) -> str:
    """The first thing in which two searches differ."""
    for part in wanted:
        ours, theirs = wanted[part], known.get(part, {})
        for key in sorted({*ours, *theirs}):
            if ours.get(key) != theirs.get(key):
                return f"{key}: there {theirs.get(key, 'not searched' if part == 'space' else 'default')}, here " + str(
                    ours.get(key, "not searched" if part == "space" else "default")
                )
    return "by another version"


@contextmanager
def search_lock(plan: SearchPlan) -> Iterator[None]:
    """Held by the one process that opens the study, asks and tells. Raises Busy if there is one."""
    path = plan.storage.with_name(plan.storage.name + ".running")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(path).acquire(timeout=PATIENCE_SECONDS)
    except Timeout:
        raise RunLocked(f"{plan.storage}: the search is going on in another process; wait for it or stop it") from None
    except OSError as error:
        raise storage_error(plan.storage, error) from None
    with held:
        yield


def storage_error(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"the search's storage {path} cannot be used: {first_line(error)}")


STANDINGS = ("complete", "pruned", "refused", "failed", "not ended")


def count_trials(study: Study) -> Counter[str]:
    """How many trials stand where; one that was tried again where the later one does.

    failed: for a reason of the machine's, and to be tried again.
    """
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    again = {trial.user_attrs.get("again") for trial in trials}
    return Counter(trial_status(trial) for trial in trials if trial.number not in again)


def trial_status(trial: FrozenTrial) -> str:
    if trial.state == TrialState.RUNNING:
        return "not ended"
    if trial.state == TrialState.FAIL:
        return "refused" if "refused" in trial.user_attrs else "failed"
    return trial.state.name.lower()


def finish_asking(study: Study, trial: FrozenTrial, space: Mapping[str, BaseDistribution]) -> None:
    """Gives a trial all its parameters, of which Optuna writes one after the other: a kill leaves it with some.

    They are drawn anew from the first on, as the study's sampler, which has to be the trial's own, draws a later one
    otherwise if it has not drawn those before.
    """
    if trial.params.keys() >= space.keys():
        return
    begun = Trial(study, trial._trial_id)
    begun._cached_frozen_trial = forgetful = copy.copy(trial)
    forgetful.params, forgetful.distributions = {}, {}
    for name, kind in space.items():
        begun._suggest(name, kind)
