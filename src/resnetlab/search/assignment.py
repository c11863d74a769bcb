"""Which trial of which search a job is: a file in the sweep's folder, and no key, which would make it another run."""

from resnetlab.completion import Watch
from resnetlab.sweeps.outcomes import SweepFolder

__all__ = ["watch_of"]


def watch_of(folder: SweepFolder, number: int) -> Watch | None:
    """What may prune the job; None for one that belongs to no search, which then needs no Optuna."""
    assignment = folder.assignment(number)
    if assignment is None or assignment["options"]["pruner"] == "none":
        return None
    from resnetlab.search.watch import TrialWatch

    return TrialWatch(assignment)
