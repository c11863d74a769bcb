"""Sweeps of real processes that are killed at bad moments: the same command again, and nothing was lost."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_resume import heed_interrupts
from test_sweeps import PROCESSES, assert_equal, table_of

from conftest import TINY
from processes import command, environment
from resnetlab import compose, run
from resnetlab.runs.files import read_rows
from resnetlab.runs.layout import RunFolder
from resnetlab.sweeps.jobs import cause_of_death

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")


JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
LONG = ("epochs=40", "data.limit=320", "batch_size=8", "trainer.progress=lines")


def children_of(parent: int) -> dict[int, str]:
    """{process: command line} of the living children."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            fields = (path / "stat").read_text().rpartition(")")[2].split()  # state, parent, ...
        except OSError:
            continue  # has ended meanwhile
        if int(fields[1]) == parent and fields[0] != "Z":
            found[int(path.name)] = line
    return found


def descendants_of(parent: int) -> dict[int, str]:
    """The same with the children's children; a worker of Ray is a child of Ray's own process."""
    found = children_of(parent)
    for child in list(found):
        found |= descendants_of(child)
    return found


def workers(parent: int) -> dict[int, str]:
    """Those that train the jobs of this sweep, with the names of their logs; "" for one of joblib, or that starts."""
    found = {}
    for pid, line in descendants_of(parent).items():
        log = job_log(pid)
        if log or "ray::resnetlab.worker" in line or "popen_loky" in line:  # of a task of Ray; of joblib's pool
            found[pid] = log
    return found


def job_log(pid: int) -> str:
    """The name of the log that the process writes to, "" if that is none of a job."""
    try:
        log = Path(f"/proc/{pid}/fd/2").readlink().name
    except OSError:
        return ""
    return log if re.fullmatch(r"job-\d+\.log", log) else ""


def servers(parent: int) -> list[int]:
    """The processes from which jobs are forked."""
    return [pid for pid, line in children_of(parent).items() if "multiprocessing.forkserver" in line]


@contextmanager
def started(*arguments: str, flags: Sequence[str] = ("-m",)) -> Iterator["subprocess.Popen[bytes]"]:
    """A sweep in a process of its own, killed at the end if it has not ended."""
    with Path("log").open("ab") as log:
        process = subprocess.Popen(
            command(*TINY, *flags, *arguments), stdout=log, stderr=log, env=environment(), preexec_fn=heed_interrupts
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], object], process: "subprocess.Popen[bytes] | None" = None) -> None:
    deadline = time.monotonic() + 600  # a busy machine takes minutes to start what an idle one does in seconds
    while not condition():
        assert time.monotonic() < deadline, Path("log").read_text()
        assert process is None or process.poll() is None, Path("log").read_text()
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def folders(arguments: Sequence[str], key: str, values: Sequence[object]) -> list[RunFolder]:
    """The runs of the sweep over one key."""
    return [compose(*TINY, *arguments, f"{key}={value}").folder for value in values]


def train_undisturbed(arguments: Sequence[str], key: str, values: Sequence[object]) -> list[RunFolder]:
    """The same runs, trained in this process."""
    arguments = (*arguments, "study=undisturbed", "trainer.progress=off")
    for value in values:
        run(compose(*TINY, *arguments, f"{key}={value}"))
    return folders(arguments, key, values)


def has_rows(folder: RunFolder, count: int) -> bool:
    return folder.last.exists() and len(read_rows(folder.metrics)) >= count


def times_finished(said: str) -> Counter[str]:
    """How often each run has said that it is finished, in the logs of all launches of the sweep and in `said`."""
    counts: Counter[str] = Counter()
    for text in (said, *(log.read_text() for log in Path("outputs").glob("*/sweeps/*/job-*.log"))):
        path = ""
        for line in text.splitlines():
            if "; run folder " in line:
                path = line.rpartition("; run folder ")[2]
                counts[path] += 0
            elif line.startswith("finished: "):
                counts[path] += 1
    return counts


def check(disturbed: Sequence[RunFolder], undisturbed: Sequence[RunFolder], said: str | None = "") -> None:
    """Each run is finished, not more than once, whole, and equal to the bit to the undisturbed one.

    said: what they printed without logs of their own; None where several printed at once.
    """
    for one, other in zip(disturbed, undisturbed, strict=True):
        assert json.loads(one.summary.read_text())["status"] == "finished"
        assert_equal(one, other)
        assert not list(one.path.rglob("*.part"))
    if said is None:
        return
    counts = times_finished(said)
    assert set(counts) == {str(folder.path) for folder in disturbed}
    assert set(counts.values()) <= {0, 1}  # 0: killed between its summary and saying so


def test_a_sweep_with_a_killed_worker_and_a_killed_parent_ends_like_an_undisturbed_one(sweep) -> None:
    """The command again is given without the launcher here: it goes on with any, and this one is quick."""
    common = ("epochs=8", "trainer.progress=lines")
    arguments = (*common, "seed=0,1,2")
    disturbed = folders(common, "seed", (0, 1, 2))
    with started(*arguments, *PROCESSES) as parent:
        wait_for(lambda: any(has_rows(folder, 1) for folder in disturbed), parent)
        first = workers(parent.pid)
        seed = next(seed for seed, folder in enumerate(disturbed) if has_rows(folder, 1))
        victim = next(pid for pid, log in first.items() if log == f"job-{seed}.log")
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: set(workers(parent.pid)) - set(first), parent)  # started again, or the third
        children = workers(parent.pid)
        parent.kill()
        wait_for(lambda: all(gone(pid) for pid in children))
    finished_before = [folder.summary.exists() for folder in disturbed]
    assert not all(finished_before)
    status, out, err = sweep(*arguments)
    assert (status, err) == (0, "")
    outcomes = [outcome for outcome, _ in table_of(out).values()]
    assert outcomes == ["skipped" if finished else "finished" for finished in finished_before]
    assert "resuming after epoch" in out
    check(disturbed, train_undisturbed(common, "seed", (0, 1, 2)), out)


KILLED = {  # of each way to start jobs: its arguments, and whom each of the 20 kills, or more, hits
    "single": ((), ["parent"] * 20),
    "basic": ((), ["parent"] * 20),
    "processes": ((*PROCESSES, "hydra.launcher.retries=100"), ["worker", "parent"] * 10 + ["server"] * 5),
    "joblib": (JOBLIB, ["worker", "parent"] * 10),
    "ray": (("hydra/launcher=ray", "hydra.launcher.retries=100"), ["worker", "parent"] * 10),
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", KILLED)
def test_runs_killed_at_twenty_random_moments_end_like_undisturbed_ones(launcher: str) -> None:
    """Half of the moments lie anywhere, most of them while processes start; half soon after an epoch's end."""
    if launcher == "ray":
        pytest.importorskip("ray")
    chance = random.Random(20)
    arguments, targets = KILLED[launcher][0], list(KILLED[launcher][1])
    chance.shuffle(targets)
    alone, flags = launcher == "single", () if launcher == "single" else ("-m",)
    common = (f"epochs={120 if alone else 40}", "data.limit=320", "batch_size=8", "trainer.progress=lines")
    wds, seeds = ((0.1,), (0,)) if alone else ((0.1, 0.2, 0.3), (0, 1))
    command_line = (*common, f"wd={','.join(map(str, wds))}", f"seed={','.join(map(str, seeds))}", *arguments)
    disturbed = [folder for wd in wds for folder in folders((*common, f"wd={wd}"), "seed", seeds)]
    started_by_them: set[int] = set()
    while targets:
        with started(*command_line, flags=flags) as parent:
            while targets and parent.poll() is None:
                assert not all(folder.summary.exists() for folder in disturbed), "finished too soon for all kills"
                if "worker" in targets:
                    wait_for(lambda: workers(parent.pid) or parent.poll() is not None)
                if chance.random() < 0.5:
                    time.sleep(chance.uniform(0, 10))
                else:
                    before = rows_of(disturbed)
                    wait_for(lambda rows=before: rows_of(disturbed) > rows or parent.poll() is not None)
                    time.sleep(chance.uniform(0, 1))
                started_by_them |= set(descendants_of(parent.pid))
                if kill_one(parent, targets[-1], chance):
                    targets.pop()
    with started(*command_line, flags=flags) as parent:
        undisturbed = [f for wd in wds for f in train_undisturbed((*common, f"wd={wd}"), "seed", seeds)]
        assert parent.wait(600) == 0, Path("log").read_text()
    said = Path("log").read_text()
    assert "failed" not in said.rpartition("job ")[2]
    logs = (said, *(log.read_text() for log in Path("outputs").rglob("job-*.log")))
    assert sum(log.count("resuming after epoch") for log in logs) >= 5, "the kills have missed the training"
    check(disturbed, undisturbed, None if launcher == "joblib" else said if launcher in ("single", "basic") else "")
    assert launcher != "joblib" or len(re.findall("^finished: ", said, re.MULTILINE)) <= len(disturbed)
    wait_for(lambda: all(gone(pid) for pid in started_by_them))  # two idle ones of Ray take a minute


NO_CUDA = """
import torch

def touched(*_):
    raise AssertionError("CUDA is asked on import")

for name in ("is_available", "device_count", "init", "_lazy_init", "current_device", "get_device_properties"):
    assert hasattr(torch.cuda, name), name
    setattr(torch.cuda, name, touched)
open("no_cuda.loaded", "w").close()
"""
FORK_TWICE = """
import os
from multiprocessing import forkserver
from pathlib import Path
from resnetlab.sweeps import processes

processes.PRELOAD.insert(0, "no_cuda")
for number in range(2):
    job = processes.fork(Path(f"job-{number}.log").resolve(), ["no_such_key=1"], dict(os.environ))
    assert "no_such_key" in job.outcome.recv()["reason"]
    job.process.join()
maps = Path(f"/proc/{forkserver._forkserver._forkserver_pid}/maps").read_text()
print("libtorch" in maps)
"""


def test_the_fork_server_has_imported_what_a_job_needs_and_touches_no_gpu() -> None:
    """Its memory maps show it, after jobs that are refused at once (a wrong key).

    CUDA does not survive a fork, nor heed a CUDA_VISIBLE_DEVICES that comes after: a server that asks for it ends, and
    no job begins.
    """
    Path("no_cuda.py").write_text(NO_CUDA)
    call = [sys.executable, "-c", FORK_TWICE]
    done = subprocess.run(call, capture_output=True, text=True, env=environment(), timeout=120)
    assert done.stdout == "True\n", done.stdout + done.stderr
    assert Path("no_cuda.loaded").exists()


def rows_of(runs: Sequence[RunFolder]) -> int:
    return sum(len(read_rows(folder.metrics)) for folder in runs if folder.metrics.exists())


def kill_one(parent: "subprocess.Popen[bytes]", target: str, chance: random.Random) -> bool:
    """Kills a worker, or what workers are forked from, or the parent, where the workers have to end as well; False if
    there is none at the moment."""
    children = workers(parent.pid)
    victims = {"worker": sorted(children), "server": servers(parent.pid), "parent": [parent.pid]}[target]
    if parent.poll() is not None or not victims:
        return False
    os.kill(chance.choice(victims), signal.SIGKILL)
    if target != "worker":
        wait_for(lambda: all(gone(pid) for pid in children))
    return True


@pytest.mark.slow
def test_two_sweeps_at_once_share_the_work() -> None:
    common = ("epochs=8", "data.limit=320", "trainer.progress=lines")
    sweep = (*common, "seed=0,1,2", "hydra/launcher=processes", "hydra.launcher.jobs=1")
    with started(*sweep) as one, started(*sweep) as other:
        assert (one.wait(240), other.wait(240)) == (0, 0)
    assert "is being trained by another process" in Path("log").read_text()
    check(folders(common, "seed", (0, 1, 2)), train_undisturbed(common, "seed", (0, 1, 2)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "retries", "reason"),
    [
        ("worker", 0, "killed by signal 9 (SIGKILL"),
        ("worker", 1, "killed by signal 9 (SIGKILL"),
        ("server", 1, "killed by the loss of the process it was forked from, 2 times"),
    ],
)
def test_a_job_that_is_killed_again_and_again_fails_with_the_reason_and_hides_no_other(
    target: str, retries: int, reason: str
) -> None:
    sweep = (*LONG, "seed=0", "wd=0.1,1e30", "hydra/launcher=processes", "hydra.launcher.jobs=1")
    with started(*sweep, f"hydra.launcher.retries={retries}") as parent:
        for _ in range(retries + 1):
            wait_for(lambda: "job-0.log" in workers(parent.pid).values(), parent)
            time.sleep(1)
            victims = workers(parent.pid)
            os.kill(servers(parent.pid)[0] if target == "server" else next(iter(victims)), signal.SIGKILL)
            wait_for(lambda pids=victims: all(gone(pid) for pid in pids))
        assert parent.wait(120) == 1
    found = table_of(Path("log").read_text())
    assert found["wd=1e+30"][0] == "diverged"
    outcome, rest = found["wd=0.1"]
    assert outcome == "failed"
    assert reason in rest
    assert ("2 times" in rest) == (retries == 1)
    assert Path(rest.rpartition("log: ")[2]).exists()


@pytest.mark.parametrize(
    ("status", "cause"), [(0, None), (1, None), (-9, "signal 9"), (143, "signal 15"), (255, "loss")]
)
def test_an_exit_status_tells_what_has_killed_the_process(status: int, cause: str | None) -> None:
    found = cause_of_death(status)
    assert (found is None) == (cause is None)
    assert cause is None or cause in str(found)


@pytest.mark.slow
def test_a_script_on_standard_input_is_not_run_again_in_the_jobs() -> None:
    """Without a guard, and with its output closed, so that descriptors 1 and 2 are free for other things."""
    sweep = [*TINY, "epochs=1", "hydra/launcher=processes", "hydra.launcher.jobs=2", "-m", "seed=0,1"]
    code = f"from resnetlab.cli import train_main as main\nimport sys\nsys.exit(main({sweep!r}))\n"
    shell = ["sh", "-c", '"$0" - >&- 2>&-', sys.executable]
    assert subprocess.run(shell, input=code, text=True, env=environment()).returncode == 0
    assert len(list(Path("outputs/default/sweeps").iterdir())) == 1
    assert all(folder.summary.exists() for folder in folders(("epochs=1",), "seed", (0, 1)))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("launcher", [PROCESSES, JOBLIB, ()], ids=["processes", "joblib", "basic"])
def test_an_interrupted_sweep_ends_its_processes_and_says_what_is_left(
    launcher: tuple[str, ...], number: int, status: int
) -> None:
    with started(*LONG, "seed=0,1,2", *launcher) as parent:
        wait_for(lambda: has_rows(folders(LONG, "seed", (0,))[0], 1), parent)
        if launcher == PROCESSES:  # whose workers end before it; those of joblib's pool may end after it
            wait_for(lambda: len(workers(parent.pid)) >= 2, parent)
        trainers, children = workers(parent.pid), descendants_of(parent.pid)
        parent.send_signal(number)
        assert parent.wait(60) == status
        if launcher == PROCESSES:
            assert len(trainers) == 2
            assert all(gone(pid) for pid in trainers)
        assert len(children) >= 2 if launcher else not children
    wait_for(lambda: all(gone(pid) for pid in children))
    said = Path("log").read_text()
    assert "3 interrupted of 3 jobs" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_joblibs_workers_end_with_a_killed_parent() -> None:
    with started(*LONG, "seed=0,1", *JOBLIB) as parent:
        wait_for(lambda: has_rows(folders(LONG, "seed", (0,))[0], 1), parent)
        children = descendants_of(parent.pid)
        parent.kill()
        wait_for(lambda: all(gone(pid) for pid in children))
    assert len(children) >= 3


@pytest.mark.slow
def test_joblibs_pool_ends_with_one_killed_worker_and_the_table_says_so() -> None:
    """Why there is another launcher."""
    with started(*LONG, "seed=0,1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2") as parent:
        first = folders(LONG, "seed", (0,))[0]
        wait_for(lambda: has_rows(first, 1), parent)
        holder = next(pid for pid in children_of(parent.pid) if holds(pid, first.lock))
        os.kill(holder, signal.SIGKILL)
        assert parent.wait(60) == 1
    said = Path("log").read_text()
    assert "3 failed of 3 jobs" in said
    assert "hydra/launcher=processes loses only the one" in said


def holds(pid: int, path: Path) -> bool:
    """Whether the process has the file open."""
    return any(os.path.realpath(link) == str(path.resolve()) for link in Path(f"/proc/{pid}/fd").glob("*"))
