"""Ray and submitit for real, on this machine: nothing is lost, and results land where they always do."""

import os
import re
import signal
from pathlib import Path

import pytest

from test_sweeps import table_of
from test_sweeps_killed import (
    check,
    folders,
    has_rows,
    pytestmark,  # noqa: F401
    started,
    train_undisturbed,
    wait_for,
    workers,
)

LONG = ("epochs=20", "trainer.progress=lines")


def listening() -> set[str]:
    """The addresses at which something listens: "0100007F" is 127.0.0.1."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                found.add(fields[1])
    return found


def outside(addresses: set[str]) -> set[str]:
    """Those that another machine could reach."""
    return {
        address
        for address in addresses
        if not re.match(r"(0000000000000000FFFF0000)?0100007F:|0+1:|0+1000000:", address)
    }


@pytest.mark.slow
def test_a_worker_of_ray_is_killed_and_nothing_is_lost() -> None:
    pytest.importorskip("ray")
    disturbed = folders(LONG, "seed", (0, 1, 2))
    before = listening()
    with started(*LONG, "seed=0,1,2", "hydra/launcher=ray") as parent:
        wait_for(lambda: any(has_rows(folder, 1) for folder in disturbed), parent)
        assert not outside(listening() - before)
        first = workers(parent.pid)
        seed = next(folder.path.name for folder in disturbed if has_rows(folder, 1))
        log = next(path for path in Path("outputs").rglob("job-*.log") if seed in path.read_text())
        victim = next(pid for pid, line in first.items() if str(log) in line)
        os.kill(victim, signal.SIGKILL)
        undisturbed = train_undisturbed(LONG, "seed", (0, 1, 2))
        wait_for(lambda: parent.poll() is not None)
        assert parent.poll() == 0
    said = Path("log").read_text()
    assert [outcome for outcome, _ in table_of(said).values()] == ["finished"] * 3
    assert "resuming after epoch" in log.read_text()
    assert not re.search("(?i)raylet|warning|traceback", said)
    check(disturbed, undisturbed)
