"""What a campaign leaves: a copy of its finished runs, without checkpoints, and their report."""

import shutil
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from resnetlab.campaign.child import LAB, begin, end
from resnetlab.runs.layout import run_key
from resnetlab.sweeps.jobs import Job

__all__ = ["Publisher"]

KEPT = ("config.yaml", "metrics.csv", "manifest.json", "summary.json")  # the last one says that all are there
BEGAN = "report.began"  # a file that tells when the last report did
PATIENCE = 120.0  # seconds, for a report


class Publisher:
    """Copies runs into `out`, and has the report written by a process of its own, while the next run trains."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.process: subprocess.Popen[bytes] | None = None
        self.stale = outdated(out)

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
        if self.stale and (self.process is None or self.process.poll() is not None):
            self.wait()
            self.stale = False
            (self.out / BEGAN).touch()
            arguments = ["report", str(self.out), "--out", str(self.out / "report")]
            self.process = begin(LAB, arguments, self.out / "report.log")

    def wait(self) -> None:
        """Until the report that is being written has come to an end, or takes too long."""
        if self.process is not None:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE)
            end(self.process)
            self.process = None

    def close(self) -> bool:
        """Waits for the report of all that was copied, which is tried again if it failed; whether it is written."""
        self.wait()
        self.stale = outdated(self.out)
        self.report()
        self.wait()
        return not outdated(self.out)


def outdated(out: Path) -> bool:
    """Whether there are runs for which no report was begun since they came, and brought to its end."""
    copied = [changed(path) for path in out.rglob("summary.json")]
    return bool(copied) and not max(copied) <= changed(out / BEGAN) <= changed(out / "report" / "report.html")


def changed(path: Path) -> int:
    """When, in ns; 0 for what is not there."""
    return path.stat().st_mtime_ns if path.exists() else 0


def same(a: Path, b: Path) -> bool:
    return b.exists() and a.read_bytes() == b.read_bytes()
