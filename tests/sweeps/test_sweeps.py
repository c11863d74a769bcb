"""Many runs from one command: each has its outcome, nothing leaks from one to the next, nothing is lost."""

import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from rich.console import Console
from test_isolation import mischief

from conftest import TINY, rows_of, tiny
from processes import train
from resnetlab import ConfigError, compose, run
from resnetlab.config.overrides import job_labels
from resnetlab.runs.files import write_rows
from resnetlab.runs.layout import RunFolder
from resnetlab.runs.sweep_records import Outcome, SweepFolder
from resnetlab.sweeps import display, launch, processes
from resnetlab.sweeps import parallelism as machine
from resnetlab.sweeps.display import Display
from resnetlab.sweeps.jobs import Job, run_jobs
from resnetlab.sweeps.parallelism import JobResources, resources_per_job
from resnetlab.sweeps.processes import ForkedJob, Processes
from resnetlab.sweeps.run_job import run_job
from resnetlab.sweeps.table import collect, exit_status, table_lines
from resnetlab.training.callbacks.checkpoints import read_checkpoint

RUN = import_module("resnetlab.training.run")  # the package's attribute of that name is the function
PROCESSES = ("hydra/launcher=processes", "hydra.launcher.jobs=2")


def table_of(printed: str) -> dict[str, tuple[str, str]]:
    """{label of the job: (outcome, the rest)} of a printed table."""
    lines = printed.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("job "))
    rows = [re.split(r" {2,}", line, maxsplit=3) for line in lines[start + 1 :] if re.match(r"\d+ ", line)]
    return {row[1]: (row[2], row[3]) for row in rows if len(row) == 4}


def block(config) -> Path:
    """Puts a file where the run's folder has to be, which stops root too."""
    path = config.folder.path
    path.parent.mkdir(parents=True)
    path.write_text("in the way")
    return path


def test_a_failing_job_hides_no_other_and_the_table_and_the_status_tell(sweep) -> None:
    blocked = block(tiny("epochs=1", "wd=0.2"))
    status, out, err = sweep("epochs=1", "wd=0.2,0.1,1e30")
    assert (status, err.count("\n")) == (1, 1)
    assert str(blocked) in err
    found = table_of(out)
    assert [outcome for outcome, _ in found.values()] == ["failed", "finished", "diverged"]
    assert found["wd=1e+30"] == ("diverged", "-")
    assert "1 finished, 1 diverged, 1 failed of 3 jobs" in out
    log = Path(found["wd=0.2"][1].rpartition("log: ")[2])
    assert "Traceback" in log.read_text()
    assert str(blocked) in found["wd=0.2"][1]
    blocked.unlink()
    status, out, err = sweep("epochs=1", "wd=0.2,0.1,1e30")
    assert (status, err) == (0, "")
    assert [outcome for outcome, _ in table_of(out).values()] == ["finished", "skipped", "skipped"]


def test_an_error_of_any_kind_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, config = SweepFolder(Path()), tiny("epochs=1")
    for long in ("Cannot be foreseen. " * 10_000, ""):
        error = ZeroDivisionError(f"Of any kind. {long}\nSecond line")
        with monkeypatch.context() as patched:
            patched.setattr(RUN, "describe", Mock(side_effect=error))
            outcome = run_job(config, folder, 0, [])
        assert (outcome.status, outcome.objective) == ("failed", None)
        reason = f"ZeroDivisionError: Of any kind. {long}"
        assert outcome.reason == (f"{reason[:500]}..." if long else reason)
        assert "Second line" in Path("job-0.log").read_text()
    assert run_job(config, folder, 0, []).status == "finished"


def test_force_starts_a_job_over_once_in_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the job is started again with the same overrides: it was killed, or put back into the queue."""
    forced = tiny("epochs=1", "force=true")
    run(tiny("epochs=1"))
    folder = SweepFolder.open("default")
    original = RUN.fit

    def kill(*arguments):
        original(*arguments)
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(RUN, "fit", kill)
        assert run_job(forced, folder, 0, []).status == "failed"
    assert not forced.folder.summary.exists()  # of the run before
    assert run_job(forced, folder, 0, []).status == "finished"
    earlier = json.loads(forced.folder.manifest.read_text())["earlier"]
    assert len(earlier) == 1  # has gone on from the checkpoint
    assert run_job(forced, folder, 1, []).status == "skipped"  # an equal job
    other = SweepFolder.open("default")
    assert run_job(forced, other, 0, []).status == "finished"
    assert "earlier" not in json.loads(forced.folder.manifest.read_text())


@dataclass
class Others(Processes):
    """Processes that do this instead of training."""

    act: Callable[[Connection], None]

    def __post_init__(self) -> None:
        super().__init__([tiny()], jobs=1, runs_per_device=1, retries=0)

    def start(self, job: Job, log: Path, running: Sequence[Job]) -> None:
        context = get_context("fork")
        ours, theirs = context.Pipe(duplex=False)
        job.handle = ForkedJob(context.Process(target=self.act, args=(theirs,)), ours)
        job.handle.process.start()
        theirs.close()


def send_another_thing_and_die(report: Connection) -> None:
    report.send({"state": "finished"})
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("act", "reason"),
    [  # the length of 1,000 bytes to come, and two of them
        (
            lambda report: os.write(report.fileno(), (1000).to_bytes(4, "big") + b"{}"),
            "ended with exit status 0 and no",
        ),
        (lambda report: sys.exit(report.send(3) or 1), "ended with exit status 1 and no outcome"),
        (send_another_thing_and_die, "killed by signal 9 (SIGKILL; the system does that when"),
    ],
)
def test_an_outcome_that_cannot_be_read_is_none(act: Callable[[Connection], None], reason: str) -> None:
    job = Job(0, "", [], tiny())
    run_jobs([job], SweepFolder.open("some"), Others(act), lambda: None)
    assert job.outcome is not None
    assert job.outcome.status == "failed"
    assert job.outcome.reason.startswith(reason)


def test_an_interrupted_sweep_keeps_the_outcomes_sent_before(capsys: pytest.CaptureFixture[str]) -> None:
    """Between two looks at it, or while it was asked to end."""
    folder = SweepFolder.open("some")
    job = Job(0, "wd=0.1", [], tiny())
    engine = Others(lambda report: report.send({"status": "finished", "objective": 0.5}))
    engine.has_ended = lambda job: False  # type: ignore[method-assign]

    def interrupt() -> None:
        job.handle.process.join()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs([job], folder, engine, interrupt)
    outcomes = collect(folder, {0: "wd=0.1", 1: "wd=0.2"}, Outcome("interrupted"))
    assert table_lines(outcomes, {}, "final_val_acc")[1:] == [
        "0    wd=0.1  finished     0.5000",
        "1            interrupted  -",
        "1 finished, 1 interrupted of 2 jobs",
    ]


def test_the_launcher_returns_the_objectives_and_starts_nothing_for_what_is_finished_or_refused(
    sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refused one stands for a job of another sweeper than ours, which would not look first."""
    expected = [run(tiny("epochs=1", "wd=0.1"))["final_val_acc"], 0.0]
    run(tiny("epochs=1", "wd=1e30"))
    returned: list[float] = []
    original = launch.launch

    def launch_and_look(*arguments):
        returns = original(*arguments)
        returned.extend(done.return_value for done in returns)
        return returns

    def refuse_one(*overrides):
        if "wd=0.2" in overrides:
            raise ConfigError("wd (=0.2) made up")
        return compose(*overrides)

    monkeypatch.setattr(launch, "launch", launch_and_look)
    monkeypatch.setattr(launch, "compose", refuse_one)
    status, out, err = sweep("epochs=1", "wd=0.1,1e30,0.2", *PROCESSES)
    assert (status, err, returned[:2]) == (1, "error: wd=0.2: wd (=0.2) made up\n", expected)
    assert math.isnan(returned[2])
    assert table_of(out)["wd=1e+30"][1] == "-              already diverged"
    assert "1 failed, 2 skipped of 3 jobs" in out
    assert [path.name for path in Path("outputs").rglob("job-*.log")] == ["job-2.log"]


def test_the_table_counts_and_what_left_nothing_is_not_forgotten() -> None:
    folder = SweepFolder.open("some")
    folder.record(0, Outcome("finished", 0.91234))
    SweepFolder(folder.path).record(2, Outcome("skipped", 0.5, "already finished"))  # another process
    wanted = {0: "wd=0.1", 1: "wd=0.2", 2: "wd=0.3"}
    outcomes = collect(folder, wanted, Outcome("failed", reason="died"))
    assert table_lines(outcomes, wanted, "final_val_acc") == [
        "job          outcome   final_val_acc",
        "0    wd=0.1  finished  0.9123",
        "1    wd=0.2  failed    -              died",
        "2    wd=0.3  skipped   0.5000         already finished",
        "1 finished, 1 failed, 1 skipped of 3 jobs",
    ]
    assert exit_status(outcomes) == 1
    assert exit_status(collect(folder, {0: "", 2: ""}, Outcome("failed", reason="died"))) == 0
    assert collect(folder, wanted, Outcome("interrupted"))[1].status == "interrupted"


def test_a_launcher_that_cannot_start_is_one_line_in_the_table(sweep) -> None:
    core = pytest.importorskip("hydra_plugins.hydra_joblib_launcher._core")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "Parallel", Mock(side_effect=RuntimeError("no semaphores here")))
        status, out, err = sweep("epochs=1", "wd=0.1,0.2", "hydra/launcher=joblib")
    assert status == 1
    assert "no semaphores here" in out
    assert "2 failed of 2 jobs" in out
    assert err.startswith("error: unexpected RuntimeError: no semaphores here; traceback: ")
    assert err.count("\n") == 1


def test_two_launches_in_one_second_with_one_process_number_have_folders_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.getpid", lambda: 1)
    folders = [SweepFolder.open("some") for _ in range(50)]
    assert len({folder.path for folder in folders}) == 50
    monkeypatch.setattr("resnetlab.runs.sweep_records.secrets.token_hex", lambda count: "00")
    monkeypatch.setattr("resnetlab.runs.sweep_records.datetime", Mock(now=lambda: datetime(2026, 1, 1)))
    SweepFolder.open("some")
    with pytest.raises(FileExistsError):
        SweepFolder.open("some")


def test_a_jobs_manifest_has_the_command_that_repeats_it_alone_and_jobs_are_counted_once(sweep) -> None:
    status, out, _ = sweep("epochs=1", "wd=0.1,0.2", "trainer.progress=lines")
    assert status == 0
    assert [line for line in out.splitlines() if line.startswith("job ")][:2] == [
        "job 0: wd=0.1 (1 more behind it)",
        "job 1: wd=0.2",
    ]
    for path in Path("outputs").rglob("manifest.json"):
        manifest = json.loads(path.read_text())
        assert manifest["classes"] == 10
        script, *overrides = manifest["command"]
        assert script == "train.py"
        assert path.parent == compose(*overrides).folder.path


def test_labels_are_what_tells_the_jobs_apart() -> None:
    assert job_labels([["a=1", "b=1", "c=3"], ["a=1", "b=2", "c=3"]]) == ["b=1", "b=2"]
    assert job_labels([["a=1"]]) == [""]


@pytest.fixture
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_the_machine_is_divided_among_the_jobs(sixteen_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny("trainer=cpu")
    for jobs, expected in ((None, (16, 1)), (3, (3, 5)), (40, (40, 1))):
        assert resources_per_job([config], jobs, 1) == JobResources(*expected)
    four = resources_per_job([config], 4, 1)
    assert four.environment(3) == {"OMP_NUM_THREADS": "4"}
    assert four.environment(3, threads=2) == {"OMP_NUM_THREADS": "2"}
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert four.environment(0) == {"OMP_NUM_THREADS": "7"}


def test_gpus_take_turns(sixteen_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for listed, names in (("", ["0", "1"]), ("3,5", ["3", "5"]), ("GPU-a,GPU-b,GPU-c", ["GPU-a", "GPU-b"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
        divided = resources_per_job([tiny()], None, 2)
        assert (divided.jobs, divided.threads) == (4, 4)
        assert [divided.environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(4)] == names * 2
    assert resources_per_job([tiny("trainer=cpu")], None, 2) == JobResources(16, 1)


def test_a_job_gets_the_gpu_of_the_one_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = []
    monkeypatch.setattr(processes, "fork", lambda log, overrides, env: devices.append(env["CUDA_VISIBLE_DEVICES"]))
    monkeypatch.setattr(processes, "resources_per_job", lambda *_: JobResources(2, 1, ("0", "1")))
    backend = Processes([tiny()], 2, 1, 0)
    first, second, third = (Job(number, str(number), [], tiny()) for number in range(3))
    for job, running in ((first, []), (second, [first]), (third, [second])):
        backend.start(job, Path("log"), running)
    assert devices == ["0", "1", "0"]


def jobs_with_files() -> list[Job]:
    """Two jobs of ten epochs each, of which the first has done three."""
    jobs = [Job(number, f"wd=0.{number}", [], tiny("epochs=10", f"wd=0.{number}")) for number in (1, 2)]
    write_rows(jobs[0].config.folder.metrics, metrics_rows(3))
    return jobs


def metrics_rows(epochs: int) -> list[dict[str, float]]:
    """The first epoch takes 11 seconds, and each other 9."""
    return [
        {"epoch": epoch, "val/acc": epoch / 10, "time/epoch": 11 if epoch == 1 else 9} for epoch in range(1, epochs + 1)
    ]


def test_the_display_says_what_is_done_running_and_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1000.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    jobs = jobs_with_files()
    jobs[0].config.folder.metrics.unlink()
    show = Display(jobs, "auto")
    jobs[0].handle = object()
    for _ in range(300):  # half a minute in which nothing happens after the first look
        now[0] += 0.1
        show()
    head = "sweep: 0 of 2 done, 1 running, 1 left, time left"
    assert capsys.readouterr().out == f"{head} ?; wd=0.1: epoch 0/10\n"
    write_rows(jobs[0].config.folder.metrics, metrics_rows(4))
    now[0] += 2.0
    show()
    assert capsys.readouterr().out == f"{head} 0:02:32; wd=0.1: epoch 4/10 val_acc 0.4000\n"  # 6 and 10 of 9.5 s
    jobs[1].handle = object()
    write_rows(jobs[1].config.folder.metrics, metrics_rows(4))
    now[0] += 11.0
    show()
    assert " 2 running, 0 left, time left 0:00:57; " in capsys.readouterr().out  # 6 of each, two at once
    jobs[1].handle = None
    jobs[1].config.folder.metrics.unlink()
    jobs[0].handle, jobs[0].outcome = None, Outcome("finished", 0.9)
    now[0] += 9.0
    show()
    assert capsys.readouterr().out == ""  # not yet
    now[0] += 2.0
    show()
    assert capsys.readouterr().out.startswith("sweep: 1 of 2 done, 0 running, 1 left, time left ")


def test_the_display_on_a_terminal_is_one_that_stays_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = jobs_with_files()
    jobs[0].handle = object()
    with Path("screen").open("w") as screen:
        monkeypatch.setattr(
            display, "Console", lambda **_: Console(file=screen, force_terminal=True, width=100, highlight=False)
        )
        with Display(jobs, "bar") as show:
            show.update()
            show.update()
    shown = Path("screen").read_text()
    assert "wd=0.1: epoch 3/10 val_acc 0.3000" in shown
    assert "\x1b[1A" in shown  # goes up to write over itself


def test_a_single_run_equals_the_third_of_a_sweep_to_the_bit(sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """First: in a fresh process. In the sweep: after a run that diverges and another, with mischief in each."""
    common = ("epochs=2", "recalibrate_bn=true", "averaging=ema", "model.norm=batch")
    single = train(*common, "study=single", "threads=1", "lr=1e-3")
    assert single.returncode == 0, single.stderr
    original = RUN.conclude

    def conclude(*arguments):
        summary = original(*arguments)
        mischief()
        return summary

    monkeypatch.setattr(RUN, "conclude", conclude)
    status, out, _ = sweep(*common, "study=sweep", "threads=1", "lr=1e30,1e-2,1e-3")
    assert status == 0
    assert [outcome for outcome, _ in table_of(out).values()] == ["diverged", "finished", "finished"]
    runs = [compose(*TINY, *common, f"study={name}", "threads=1", "lr=1e-3").folder for name in ("single", "sweep")]
    assert_equal(*runs)


def assert_equal(one: RunFolder, other: RunFolder) -> None:
    """metrics.csv but for the times, and the weights, to the bit."""
    assert one.path != other.path
    assert rows_of(one) == rows_of(other) != []
    weights = [read_checkpoint(folder.last)["state_dict"] for folder in (one, other)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.slow
def test_joblib_trains_two_at_once_and_reports_in_the_same_table(sweep) -> None:
    blocked = block(tiny("epochs=1", "wd=0.2"))
    status, out, _ = sweep("epochs=1", "wd=0.1,0.2,0.3", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert status == 1
    found = table_of(out)
    assert [outcome for outcome, _ in found.values()] == ["finished", "failed", "finished"]
    assert str(blocked) in found["wd=0.2"][1]
    assert len(list(Path("outputs").rglob("summary.json"))) == 2


@pytest.mark.slow
def test_the_processes_launcher_reports_what_fails_diverges_and_is_twice_there(sweep) -> None:
    block(tiny("epochs=1", "wd=0.1", "seed=1"))
    status, out, err = sweep("epochs=1", "wd=0.1,1e30,0.1", "seed=0,1", *PROCESSES)
    assert status == 1
    assert "1 finished, 2 diverged, 2 failed, 1 skipped of 6 jobs" in out
    assert err.count("\n") == 2
    outcomes = [json.loads(path.read_text()) for path in sorted(Path("outputs").rglob("job-*.json"))]
    assert [outcome["status"] for outcome in outcomes] == [
        *("finished", "failed", "diverged", "diverged", "skipped", "failed")
    ]
    assert all("Traceback" in Path(o["log"]).read_text() for o in outcomes if o["status"] == "failed")
