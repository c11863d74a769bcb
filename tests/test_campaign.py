"""resnetlab campaign: its list, its estimates, and small campaigns on a CPU that are cut, killed and gone on with."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from test_run import deterministic
from test_sweeps_killed import children_of, descendants_of, gone, job_log, wait_for

from conftest import TINY
from processes import environment
from resnetlab import compose
from resnetlab.campaign import tasks, work
from resnetlab.campaign.child import LAB, end
from resnetlab.campaign.child import environment as with_packages
from resnetlab.campaign.clock import Clock
from resnetlab.campaign.estimate import START_SECONDS, Pace, epochs_left
from resnetlab.campaign.listing import Task, read
from resnetlab.campaign.publish import Publisher
from resnetlab.campaign.tasks import done, perform, perform_all
from resnetlab.campaign.work import device, fitting
from resnetlab.cli import main
from resnetlab.config.identity import run_folder
from resnetlab.errors import ConfigError
from resnetlab.optim.schedules import PiecewiseLinear
from resnetlab.runs.files import read_rows, write_rows
from resnetlab.runs.sweep_records import Outcome
from resnetlab.sweeps.jobs import Job
from synthetic import write_run

SHORT = "model=resnet20v2 model.depth=11 data=digits"
TINY_LINE = " ".join(TINY[:-1])  # without trainer.progress, which the campaign's processes set


def write(text: str) -> Path:
    path = Path("list.txt")
    path.write_text(text.replace("TINY", TINY_LINE))
    return path


# --- the list


def test_a_stage_runs_every_line_with_the_first_seed_first() -> None:
    path = write(
        "# all\nbench 60\n[one]\nTINY wd=0.1 seeds=2 # two\nTINY wd=0.2 seeds=3\n\n[two's]\nTINY seed=7\nTINY wd=0.3\n"
    )
    plan = read(path)
    assert [(task.name, task.seconds) for task in plan.tasks] == [("bench", 60.0)]
    found = [(job.config.wd, job.config.seed) for job in plan.jobs]
    assert found == [(0.1, 0), (0.2, 0), (0.1, 1), (0.2, 1), (0.2, 2), (0.2, 7), (0.3, 0)]


@pytest.mark.slow
def test_the_campaign_of_the_lab_is_of_presets_that_there_are() -> None:
    """57 runs: the series' tables, each with three seeds; and none of them twice."""
    plan = read(None)
    assert [task.name for task in plan.tasks] == ["bench", "gpu-tests"]
    seeds = [job.config.seed for job in plan.jobs]
    assert len(plan.jobs) == 57
    assert all(seeds.count(seed) == 19 for seed in range(3))
    assert all(job.config.recalibrate_bn for job in plan.jobs)
    axis = [job.config for job in plan.jobs if "table1" in job.label and job.config.seed == 0]
    knots = [[20, 1.0], [40, 0.1], [50, 0.0125]]  # of post IV's table 1; the last one differs
    common = [c.wd for c in axis if isinstance(c.schedule, PiecewiseLinear) and c.schedule.milestones[:-1] == knots]
    assert common == [None, 0.0005, 0.004, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4]
    assert len(axis) == 1 + len(common)  # 05, the other one at 0.1
    published, ours = (vars(job.config) for job in plan.jobs[-2:])
    assert {key for key in ours if ours[key] != published[key]} == {"study", "model"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names nothing to do"),
        ("bench", "line 1: bench: bench wants the seconds"),
        ("\nTINY wdd=1", "line 2: .*wdd"),
        ("TINY wd=-1", "line 1: wd"),
        ("TINY wd='0.1", "line 1: No closing quotation"),
        ("TINY seeds=0", "line 1: seeds \\(=0\\)"),
        ("TINY seeds=1001", "line 1: seeds \\(=1001\\) must be one number of seeds, 1..1000"),
        ("TINY seeds=\N{SUPERSCRIPT TWO}", "line 1: seeds"),
        ("bench \N{SUPERSCRIPT TWO}", "line 1: bench .*: bench wants the seconds"),
        ("TINY seeds=2 seed=1", "line 1: seeds \\(=2\\)"),
        ("TINY seeds=2\nTINY seed=1", "names a run twice: .* seed=1"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused_before_any_work(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(write(text))
    assert not Path("outputs").exists()


def test_a_list_that_is_not_text_is_refused() -> None:
    Path("list").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"--list \(=list\) is not text"):
        read(Path("list"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "0"], "--budget (=0.0)"),
        ([], "--budget (=None)"),
        (["--budget", "9", "--list", "none.txt"], "--list (=none.txt): No such file"),
        (["--budget", "9", "--runs-per-device", "0"], "--runs-per-device (=0)"),
        (["--budget", "9"], "conf/campaign.txt is for a GPU, and torch sees none here; --list FILE takes another"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["campaign", *arguments]) == 2
    assert message in capsys.readouterr().err


# --- estimates


def trained(seconds: list[float], *overrides: str) -> None:
    rows = [{"epoch": n, "val/acc": 0.5, "time/epoch": s} for n, s in enumerate(seconds, start=1)]
    write_rows(run_folder(compose(*overrides)).metrics, rows)


def test_a_run_is_estimated_by_the_epochs_seen_so_far(capsys: pytest.CaptureFixture[str]) -> None:
    """The same work by its median without the first epoch; other work by its images; nothing is known at first."""
    path = write("TINY epochs=10 seeds=2\nTINY epochs=4 batch_size=16\nTINY epochs=4 data.limit=120\n")
    jobs = read(path).jobs
    assert Pace(jobs).of_run(jobs[0]) is None
    trained([9.0, 2.0, 4.0, 3.0], *jobs[0].overrides)
    pace = Pace(jobs)
    assert [epochs_left(job) for job in jobs] == [6, 4, 4, 10]
    assert pace.of_run(jobs[0]) == pytest.approx(START_SECONDS + 1.05 * 6 * 3.0)
    assert pace.of_run(jobs[3]) == pytest.approx(START_SECONDS + 1.05 * 10 * 3.0)
    assert pace.of_run(jobs[1]) == pytest.approx(START_SECONDS + 1.05 * 4 * 3.0)
    assert pace.of_run(jobs[2]) == pytest.approx(START_SECONDS + 1.05 * 4 * 6.0)
    assert main(["campaign", "--list", str(path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "open     0:00:39    6 epochs" in said
    assert "0 of 4 runs are done; left: 4 runs, 24 epochs, about" in said


def test_what_fits_is_begun_and_of_a_call_that_fits_nothing_the_first() -> None:
    jobs = read(write("TINY epochs=100\nTINY epochs=10\nTINY epochs=10 wd=0.1\n")).jobs
    assert fitting(jobs, jobs, Clock(1.0), begun=True) is jobs[0]  # nobody knows how long it takes
    trained([3.0, 3.0], *jobs[2].overrides)
    assert fitting(jobs, jobs, Clock(1000.0), begun=True) is jobs[0]  # 20 + 1.05 * 300
    assert fitting(jobs, jobs, Clock(100.0), begun=True) is jobs[1]  # 20 + 1.05 * 30
    assert fitting(jobs, jobs, Clock(53.0), begun=True) is jobs[2]  # two epochs of ten are done
    assert fitting(jobs, jobs, Clock(40.0), begun=True) is None
    assert fitting(jobs, jobs, Clock(40.0), begun=False) is jobs[0]
    assert fitting([], jobs, Clock(40.0), begun=False) is None


class OneSecond:
    """In the place of Processes: what it starts ends after a second."""

    elsewhere = False

    def __init__(self, *_: object) -> None:
        self.began = 0.0

    def free(self, running: Sequence[Job]) -> bool:
        return len(running) < 2

    def start(self, job: Job, *_: object) -> None:
        self.began = time.monotonic()
        job.handle = job.label

    def ended(self, job: Job) -> bool:
        return time.monotonic() > self.began + 1

    def conclusion(self, job: Job, log: Path) -> Outcome:
        return Outcome("finished")

    def stop(self, running: Sequence[Job]) -> list[tuple[Job, Outcome]]:
        return []


def test_what_fits_is_looked_for_after_a_start_and_an_end_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look reads the rows of all runs; there is room for a second run here, which does not fit."""
    jobs = read(write("TINY epochs=10\nTINY epochs=10000\n")).jobs
    trained([3.0, 3.0], *jobs[0].overrides)
    looks = []

    def look(*arguments: Any) -> Job | None:
        looks.append(found := fitting(*arguments))
        return found

    monkeypatch.setattr(work, "fitting", look)
    monkeypatch.setattr(work, "Processes", OneSecond)
    work.work_off(jobs, Clock(1000.0), Publisher(Path("kept")), 1)
    assert looks == [jobs[0], None, None]


# --- tasks


GPU_TESTS, BENCH = Task("gpu-tests", 60.0), Task("bench", 600.0)


def gpu_tests(body: str) -> None:
    """A folder of them, for a machine that has no GPU."""
    Path("tests").mkdir(exist_ok=True)
    Path("tests/test_it.py").write_text(
        f"import pathlib, time\nimport pytest\npytestmark = pytest.mark.gpu\ndef test_it():\n    {body}\n"
    )


def test_the_tests_of_a_gpu_are_done_once_they_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call finds a failure, the second one a test that takes too long, the third one that all is well."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    out = Path()
    gpu_tests("assert False")
    assert perform_all([GPU_TESTS], out, Clock(200.0)) == ["gpu-tests"]
    gpu_tests("time.sleep(60)")
    assert perform(GPU_TESTS, out, 2.0) == "cut"
    assert not [line for line in children_of(os.getpid()).values() if "pytest.main" in line]
    assert not done(GPU_TESTS, out)
    gpu_tests("time.sleep(1.5)")  # the lifeline is looked at meanwhile, though pytest has changed the standard input
    assert perform_all([GPU_TESTS], out, Clock(200.0)) == []
    assert done(GPU_TESTS, out)
    assert "1 passed" in Path("gpu-tests.txt").read_text()
    assert perform_all([GPU_TESTS], out, Clock(0.0)) == []  # is not asked for again


def test_without_a_gpu_its_tests_are_skipped_and_half_of_a_tasks_seconds_are_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert device() == "cpu"
    assert perform_all([BENCH, GPU_TESTS], Path(), Clock(300.0)) == []
    said = capsys.readouterr().out
    assert "bench: not begun; it wants 300 s at least, and 270 s are left" in said
    assert "gpu-tests: skipped, torch sees no CUDA device here" in said
    assert not done(GPU_TESTS, Path())


def test_a_task_ends_with_a_campaign_that_is_killed() -> None:
    """While it has the tests run that need a GPU."""
    gpu_tests("pathlib.Path('begun').touch(); time.sleep(60)")
    code = """
import torch; torch.cuda.is_available = lambda: True
from pathlib import Path; from resnetlab.campaign.listing import Task; from resnetlab.campaign.tasks import perform
perform(Task("gpu-tests", 60.0), Path(), 60.0)
"""
    with open("log", "w") as log:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log, env=with_packages())
    wait_for(Path("begun").exists, process)
    assert_killed_with_all(process)


def assert_killed_with_all(process: "subprocess.Popen[bytes]") -> None:
    family = descendants_of(process.pid)
    assert family
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 15
    while not all(map(gone, family)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not {line for pid, line in family.items() if not gone(pid)}


@pytest.mark.slow
def test_a_bench_that_is_killed_after_a_round_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is there by then; the next call makes it to the end."""

    def small(task: Task, result: Path, seconds: float) -> tuple[str, list[str]]:
        options = "--model resnet20v2 --names bare --batch-sizes 8 --precisions 32-true --images 256 --concurrent ,"
        rounds = "2" if result.exists() else "100000"
        turns = ["--seconds-per-turn", "0.1", "--rounds", rounds, "--budget", "600"]
        return LAB, ["bench", *options.split(), *turns, "--out", str(result)]

    def kill() -> None:
        wait_for(Path("bench.json").exists)
        for pid, line in children_of(os.getpid()).items():
            if " bench " in line:
                os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr(tasks, "command", small)
    Path("log").touch()
    killer = threading.Thread(target=kill)
    killer.start()
    assert perform(BENCH, Path(), 600.0) == "failed", Path("bench.log").read_text()
    killer.join()
    assert json.loads(Path("bench.json").read_text())["rows"]
    assert not done(BENCH, Path())
    assert perform(BENCH, Path(), 600.0) == "done", Path("bench.log").read_text()
    assert done(BENCH, Path())


# --- what is kept


def test_a_report_that_was_not_written_is_written_by_the_next_call() -> None:
    """Killed before it was begun, while it was written, and while it was written for fewer runs."""
    out = Path("kept")
    assert not Publisher(out).stale  # there is nothing to report
    write_run(out, seed=0)
    publisher = Publisher(out)
    assert publisher.stale
    publisher.report()
    assert publisher.process is not None
    end(publisher.process)
    publisher = Publisher(out)
    assert publisher.stale
    assert publisher.close()
    page = out / "report" / "report.html"
    assert page.stat().st_size > 10_000
    assert not Publisher(out).stale
    began = out / "report.began"
    os.utime(began, (began.stat().st_mtime - 60,) * 2)  # as if the run had come a minute after
    assert Publisher(out).stale


def test_a_report_that_fails_is_said_to_and_is_tried_again_by_the_next_call() -> None:
    out = Path("kept")
    write_run(out)
    (out / "report").write_text("in the way")
    assert not Publisher(out).close()
    assert "cannot be made: Not a directory" in (out / "report.log").read_text()
    (out / "report").unlink()
    publisher = Publisher(out)
    assert publisher.stale
    assert publisher.close()
    assert Path("kept/report/table.csv").exists()


# --- real ones


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", LAB, "campaign", "--list", "list.txt", "--out", "kept", *arguments]


def call(*arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, env=environment(**with_packages()), timeout=400
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def kept() -> dict[str, list[dict[str, float]]]:
    return {str(path.parent): deterministic(read_rows(path)) for path in sorted(Path("kept").rglob("metrics.csv"))}


# 30 steps an epoch, some 9 s a run on an idle core
LONG = "data.limit=240 batch_size=8 epochs=25"


@pytest.mark.slow
def test_a_campaign_in_two_calls_is_complete_and_the_runs_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget is too small for the first run even, which is interrupted; what fits no more is not begun."""
    text = f"{SHORT} {LONG}\nTINY epochs=1\n"
    results = []
    for name in ("whole", "cut"):
        Path(name).mkdir(exist_ok=True)
        monkeypatch.chdir(name)
        write(text)
        if name == "cut":
            said = call("--budget", "10")
            assert "0 of 2 runs are done; left: 2 runs" in said
            assert "interrupted by the budget" in said
            assert not list(Path("outputs").rglob("summary.json"))
        assert "2 of 2 runs are done" in call("--budget", "400")
        results.append(kept())
        assert len(results[-1]) == 2
        assert {path.name for path in Path("kept").rglob("seed=0/*")} == {
            "config.yaml", "metrics.csv", "manifest.json", "summary.json",
        }  # fmt: skip
        assert "resnet20v2" in Path("kept/report/table.csv").read_text()
        assert Path("kept/report/report.html").stat().st_size > 10_000
        assert "2 of 2 runs are done" in call("--budget", "400")  # and trains nothing
        assert kept() == results[-1]
        monkeypatch.chdir("..")
    assert results[0] == results[1]


@pytest.mark.slow
def test_a_campaign_that_is_killed_goes_on() -> None:
    """SIGKILL in the middle of the second of two at once; no process of it lives on."""
    write(f"{SHORT} {LONG} seeds=2\n")
    with open("log", "w") as log:
        process = subprocess.Popen(
            command("--budget", "400", "--runs-per-device", "2"), stdout=log, stderr=log,
            env=environment(**with_packages()),
        )  # fmt: skip
    wait_for(lambda: len(list(Path("outputs").rglob("metrics.csv"))) == 2, process)
    assert {job_log(pid) for pid in descendants_of(process.pid)} == {"", "job-0.log", "job-1.log"}
    assert_killed_with_all(process)
    assert "2 of 2 runs are done" in call("--budget", "400", "--runs-per-device", "2")
    assert len(kept()) == 2


@pytest.mark.slow
def test_a_run_that_fails_ends_neither_the_others_nor_the_campaign() -> None:
    path = write("TINY epochs=1 seeds=2\n")
    folder = read(path).jobs[0].run.path
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")
    said = call("--budget", "200", status=1)
    assert "failed: " in said
    assert "1 of 2 runs are done; left: 1 runs" in said
    folder.unlink()
    assert "2 of 2 runs are done" in call("--budget", "200")
