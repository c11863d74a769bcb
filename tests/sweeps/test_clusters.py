"""Ray and submitit for real, on this machine: nothing is lost, and results land where they always do."""

import os
import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_sweeps import assert_equal, table_of
from test_sweeps_killed import (
    check,
    descendants_of,
    folders,
    has_rows,
    holds,
    pytestmark,  # noqa: F401
    started,
    train_undisturbed,
    wait_for,
    workers,
)

from conftest import tiny
from resnetlab import ConfigError
from resnetlab.runs.layout import RunFolder
from resnetlab.runs.sweep_records import SweepFolder
from resnetlab.sweeps import launchers
from resnetlab.sweeps.jobs import Job, run_jobs
from resnetlab.sweeps.launchers import check_launcher
from resnetlab.sweeps.ray_tasks import RayTasks

LONG = ("epochs=30", "trainer.progress=lines")


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
    local = re.compile(r"(0000000000000000FFFF0000)?0100007F:|0+1:|0+1000000:")
    return {address for address in addresses if not local.match(address)}


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
        victim = next(pid for pid, name in first.items() if name == log.name)
        os.kill(victim, signal.SIGKILL)
        undisturbed = train_undisturbed(LONG, "seed", (0, 1, 2))
        wait_for(lambda: parent.poll() is not None)
        assert parent.poll() == 0
    said = Path("log").read_text()
    assert [outcome for outcome, _ in table_of(said).values()] == ["finished"] * 3
    assert "resuming after epoch" in log.read_text()
    assert not re.search("(?i)raylet|warning|traceback", said)
    check(disturbed, undisturbed)


@pytest.mark.slow
def test_a_killed_job_of_submitit_hides_no_other_and_the_same_command_goes_on() -> None:
    """The other is preempted, as SLURM does it: it goes on by itself."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    sweep = (*LONG, "seed=0,1", "hydra/launcher=submitit_local")
    disturbed = folders(LONG, "seed", (0, 1))
    with started(*sweep) as parent:
        wait_for(lambda: all(has_rows(folder, 1) for folder in disturbed), parent)
        send(signal.SIGKILL, parent.pid, disturbed[0])
        send(signal.SIGUSR2, parent.pid, disturbed[1])
        wait_for(lambda: parent.poll() is not None)
        assert parent.poll() == 1
    found = table_of(Path("log").read_text())
    assert {label: outcome for label, (outcome, _) in found.items()} == {"seed=0": "failed", "seed=1": "finished"}
    assert "ended without a result" in found["seed=0"][1]
    assert Path(found["seed=0"][1].rpartition("log: ")[2]).exists()
    assert any("resuming after epoch" in path.read_text() for path in Path("outputs").rglob("*_log.out"))
    with started(*sweep) as parent:
        wait_for(lambda: parent.poll() is not None)
        assert parent.poll() == 0
    said = Path("log").read_text().rpartition("job ")[2]
    assert "1 finished, 1 skipped of 2 jobs" in said
    assert "Traceback" not in Path("log").read_text()
    for one, other in zip(disturbed, train_undisturbed(LONG, "seed", (0, 1)), strict=True):
        assert_equal(one, other)
    assert {path.name for path in Path.cwd().iterdir()} == {"log", "outputs"}


def send(number: int, parent: int, run: RunFolder) -> None:
    """Sends the signal to the process that trains the run."""
    os.kill(next(pid for pid in descendants_of(parent) if holds(pid, run.lock)), number)


def nodes(monkeypatch: pytest.MonkeyPatch, *found: tuple[bool, float, float]) -> None:
    """What Ray says of its nodes: (alive, CPUs, GPUs) of each."""
    listed = [{"Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus}} for alive, cpus, gpus in found]
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(nodes=lambda: listed, shutdown=lambda: None))


def test_rays_own_files_are_private_and_its_token_is_in_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}

    def init(**options) -> None:
        os.umask(mask := os.umask(0o022))
        seen.update(options, umask=mask)

    fake = SimpleNamespace(init=init, shutdown=lambda: None, remote=lambda **_: lambda function: function)
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    before = os.umask(0o002)
    tokens = set()
    try:
        for _ in range(2):
            os.environ.pop("RAY_AUTH_TOKEN", None)
            engine = RayTasks([tiny()], None, 1, 0.0, retries=0)
            engine.connect()
            parent = Path(str(seen["_temp_dir"])).parent
            assert parent.stat().st_mode & 0o777 == 0o700
            assert len(f"{seen['_temp_dir']}/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store") < 107
            engine.stop([])
            assert not parent.exists()
            tokens.add(os.environ["RAY_AUTH_TOKEN"])
        assert (seen["umask"], engine.umask, os.umask(0o002)) == (0o077, 0o002, 0o002)
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert len(tokens) == 2
        assert min(map(len, tokens)) == 64
    finally:
        os.umask(before)


def tasks(cpus: int, gpus: float) -> RayTasks:
    engine = RayTasks([], "auto", cpus, gpus, retries=0)
    engine.remote = SimpleNamespace(options=lambda **_: pytest.fail("has put a task that no node can take"))
    return engine


def test_a_job_of_ray_needs_its_room_on_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes(monkeypatch, (True, 3.0, 0.0), (True, 3.0, 1.0), (False, 64.0, 8.0))
    assert [tasks(cpus, 0).places() for cpus in (1, 2, 3, 4)] == [6, 2, 2, 0]
    assert [tasks(1, gpus).places() for gpus in (0.1, 0.3, 0.5, 1.0, 2.0)] == [3, 3, 2, 1, 0]
    one = Job(0, "", [], tiny())
    assert [tasks(2, 0).has_room([one] * count) for count in (0, 1, 2)] == [True, True, False]


def test_jobs_that_no_node_of_ray_has_room_for_fail_and_say_what_to_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes(monkeypatch, (True, 3.0, 0.0), (True, 3.0, 0.0))
    jobs = [Job(number, f"wd=0.{number}", [], tiny(f"wd=0.{number}")) for number in (1, 2)]
    folder = SweepFolder.open("some")
    run_jobs(jobs, folder, tasks(4, 0.5), lambda: None)
    reason = "no node of Ray's cluster has 4 CPU and 0.5 GPU: change hydra.launcher.num_cpus or num_gpus"
    assert [job.outcome.reason for job in jobs if job.outcome] == [reason] * 2
    assert capsys.readouterr().err == "".join(f"error: wd=0.{number}: {reason}\n" for number in (1, 2))


GOOD = {
    "processes": {"jobs": None, "runs_per_device": 1, "retries": 0},
    "ray": {"address": None, "num_cpus": 4, "num_gpus": None, "retries": 0},
    "submitit_slurm": {"nodes": 1, "tasks_per_node": 1, "mem_gb": None},
}
BAD = {
    "processes": "runs_per_device=0",
    "ray": "num_cpus=-1 num_cpus=5 num_gpus=99 retries=-1",
    "submitit_slurm": "nodes=2 tasks_per_node=2 timeout_min=0 mem_gb=0 array_parallelism=0",
}


@pytest.mark.parametrize("launcher", GOOD)
def test_values_that_a_launcher_cannot_have_are_refused_by_name(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchers, "check_installed", lambda name: None)
    monkeypatch.setattr(launchers, "cores", lambda: 4)
    check_launcher(launcher, GOOD[launcher])
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.address \(=''\)"):
        check_launcher("ray", {"address": ""})
    check_launcher("ray", {"address": "auto", "num_cpus": 64, "num_gpus": 0.5, "retries": 0})
    for key, value in (wrong.split("=") for wrong in BAD[launcher].split()):
        with pytest.raises(ConfigError, match=rf"hydra\.launcher\.{key} \(={value}\)"):
            check_launcher(launcher, {**GOOD[launcher], key: int(value)})


def test_slurm_is_refused_where_there_is_no_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchers, "find_spec", lambda name: name)
    monkeypatch.setattr(launchers, "which", lambda name: None)
    with pytest.raises(ConfigError, match="needs SLURM's srun, which is not here; take submitit_local"):
        check_launcher("submitit_slurm", {})
    check_launcher("submitit_local", {})


@pytest.mark.parametrize("launcher", ["ray", "submitit_slurm", "submitit_local", "joblib"])
def test_a_launcher_whose_package_is_missing_is_refused_with_the_cure(
    launcher: str, sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launchers, "find_spec", lambda name: None)
    status, out, err = sweep("wd=0.1,0.2", f"hydra/launcher={launcher}")
    assert (status, out) == (2, "")
    assert re.fullmatch(
        rf"error: hydra/launcher={launcher} needs a package that is not here: pip install [\w-]+\n", err
    )
    assert not list(Path.cwd().iterdir())
