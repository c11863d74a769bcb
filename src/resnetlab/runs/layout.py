"""File names and paths of a run and of a sweep: the one place where they are spelt.

outputs/<study>/<configuration>/seed=<n> holds a run, outputs/<study>/sweeps/<when>-<process>-<random> a sweep. The name
of the configuration's folder is made in config/identity.py.
"""

import os
from pathlib import Path

OUTPUTS_VARIABLE = "RESNETLAB_OUTPUTS"
SEED = "seed="  # begins the name of a run's folder
RUN_FILES = ("config.yaml", "manifest.json", "metrics.csv", "summary.json")
CONFIG, MANIFEST, METRICS, SUMMARY = RUN_FILES
PREDICTIONS = "predictions.npz"  # not among them: resnetlab evaluate may add it to a run that has ended
SWEEPS = "sweeps"
SWEEP_PLAN = "sweep.json"  # all jobs of a sweep
TRUNKS = "trunks.json"  # of a sweep with trunk=auto: the jobs that go on from others, and at which epochs
SWEEP_START = "began"  # its time of writing is when the sweep began, by the clock that dates the runs' files
# of a job, by its number: what became of it, its log, the trial that a search has made it
OUTCOME, JOB_LOG, ASSIGNMENT = "job-{}.json", "job-{}.log", "trial-{}.json"
SEARCH_JOURNAL = "search.journal"
LOGGER_RUNS = "loggers.json"  # the trackers' own ids of a run, or of a sweep


def default_outputs() -> Path:
    """The folder of all studies where no outputs=DIR names it: the environment variable's, or outputs."""
    return Path(os.environ.get(OUTPUTS_VARIABLE, "outputs"))


class RunFolder:
    """Paths of one run's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / CONFIG
        self.metrics = path / METRICS
        self.summary = path / SUMMARY
        self.manifest = path / MANIFEST
        self.curves = path / "curves.png"
        self.lock = path / ".lock"
        self.trace = path / "profile" / "trace.json.gz"
        self.operations = path / "profile" / "operations.txt"
        self.checkpoints = path / "checkpoints"
        self.best = self.checkpoints / "best.ckpt"
        self.last = self.checkpoints / "last.ckpt"
        self.previous = self.checkpoints / "last.prev.ckpt"

    def remove_leftovers(self) -> None:
        """Remove the temporary files that a kill in the middle of writing left."""
        for path in (*self.path.glob("*.part"), *self.checkpoints.glob("*.part")):
            if path.is_symlink() or not path.is_dir():
                path.unlink()

    def snapshot(self, epoch: int) -> Path:
        """Path of the checkpoint that `snapshots` keeps of that epoch."""
        return self.checkpoints / f"epoch={epoch}.ckpt"

    def snapshot_best(self, epoch: int) -> Path:
        """Path of the best checkpoint as of that epoch, which trunk=auto keeps beside the snapshot."""
        return self.checkpoints / f"epoch={epoch}.best.ckpt"


def run_key(folder: str | Path) -> str:
    """A run's name within its outputs: "<study>/<configuration>/seed=<n>"."""
    return "/".join(Path(folder).parts[-3:])


def job_number(path: Path) -> int:
    """The number in the name of a job's file. Raises ValueError for any other name."""
    return int(path.stem.rpartition("-")[2])
