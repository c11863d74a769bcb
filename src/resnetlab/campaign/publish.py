"""What a campaign leaves: a copy of its finished runs, without checkpoints, and their report."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from resnetlab.campaign.tasks import LAB, environment
from resnetlab.report.asked import run_key
from resnetlab.sweeps.jobs import Job

__all__ = ["Publisher"]

KEPT = ("config.yaml", "metrics.csv", "manifest.json", "summary.json")  # the last one says that all are there


class Publisher:
    """Copies runs into `out`, and has the report written by a process of its own, while the next run trains."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.process: subprocess.Popen[bytes] | None = None
        self.stale = False

    def copy(self, jobs: Iterable[Job]) -> None:
        """Those that have come to an end, where they are not there yet as they are."""
        for job in jobs:
            source, target = job.run.path, self.out / run_key(job.run.path)
            if not job.run.summary.exists() or same(source / "summary.json", target / "summary.json"):
                continue
            target.mkdir(parents=True, exist_ok=True)
            for name in KEPT:
                if (source / name).exists():
                    shutil.copyfile(source / name, target / f"{name}.part")
                    (target / f"{name}.part").replace(target / name)
            self.stale = True

    def report(self) -> None:
        """Begins a report if there is something new, and none is being written."""
        if self.stale and not self.writing():
            self.stale = False
            line = [*LAB, "report", str(self.out), "--out", str(self.out / "report")]
            with (self.out / "report.log").open("wb") as file:
                self.process = subprocess.Popen(line, stdout=file, stderr=subprocess.STDOUT, env=environment())

    def writing(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def close(self) -> bool:
        """Waits for the report of all that was copied; whether it was written."""
        if self.process is not None:
            self.process.wait()
        self.report()
        return self.process is None or self.process.wait() == 0


def same(a: Path, b: Path) -> bool:
    return b.exists() and a.read_bytes() == b.read_bytes()
