"""`resnetlab status`: the state of every run, told by its files and by who holds its lock, which it never takes."""

import fcntl
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from rich.console import Console
from test_resume import heed_interrupts

from resnetlab import Config, compose
from resnetlab.cli import main
from resnetlab.config.compose import to_yaml
from resnetlab.config.identity import identity, run_folder
from resnetlab.config.schema import GROUPS
from resnetlab.report.status import age, duration, fitting, show
from resnetlab.runs import state as facts_module
from resnetlab.runs.files import write_json, write_rows, write_text
from resnetlab.runs.layout import RunFolder
from resnetlab.runs.state import (
    FILES,
    FactsReader,
    Locks,
    RunFacts,
    RunState,
    RunStates,
    StateReader,
    parse_locks,
    parse_mounts,
    settings,
)
from resnetlab.runs.summary import summarize
from resnetlab.runs.sweep_records import Outcome, SweepFolder, planned_seeds
from synthetic import synthetic_rows

linux = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux lists its locks")
HOLD = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); input()"


@cache
def base() -> Config:
    return compose("data=digits", "epochs=10", "study=some")


def begun(done: int, ended: str = "", **settings: object) -> RunFolder:
    """A run's folder as the lab leaves it after `done` of 10 epochs of half a minute each."""
    config = replace(base(), **settings)
    folder = run_folder(config)
    rows = synthetic_rows(config.epochs, 0.9, config.seed)[:done]
    rows = [{**row, "time/epoch": 30.0} for row in rows]
    write_text(folder.config, to_yaml(config))
    write_json(folder.manifest, {"differs_from_defaults": identity(config)})
    folder.lock.touch()
    if rows:
        write_rows(folder.metrics, rows)
    if ended:
        write_json(folder.summary, summarize(config, rows, status=ended))
    return folder


@contextmanager
def trained(folder: RunFolder) -> Iterator["subprocess.Popen[str]"]:
    """Another process holds the run's lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def rows_of(printed: str) -> list[list[str]]:
    """The cells of the table's rows, which are here too short to be folded."""
    lines = printed.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("configuration"))
    found = (re.split(r" {2,}|(?<=\S) (?=\S+ *$)", line.strip()) for line in lines[start + 1 :])
    return [row for row in (" ".join(cells).split() for cells in found) if row and row[0] == "wd"]


@linux
def test_the_table_says_of_every_run_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    begun(10, "finished", wd=0.1)
    begun(10, "finished", wd=0.1, seed=1)
    begun(2, "diverged", wd=0.5)
    begun(4, wd=0.2)
    begun(0, wd=0.2, seed=1)
    damaged = begun(10, "finished", wd=0.3)
    damaged.summary.write_text(damaged.summary.read_text()[:40])
    failed = begun(3, wd=0.4)
    running = begun(6, wd=0.2, seed=2)
    sweep = SweepFolder.open("some")
    os.environ.pop(SweepFolder.VARIABLE)
    sweep.record(3, Outcome("failed", reason="CUDA out of memory\nSecond line", folder=str(failed.path)))
    sweep.record(4, Outcome("failed", reason="of long ago", folder=str(run_folder(replace(base(), wd=0.2)).path)))
    os.utime(sweep.path / "job-4.json", (1, 1))
    jobs = [replace(base(), wd=0.6), replace(base(), wd=0.6, seed=1), replace(base(), wd=0.1)]
    sweep.plan([(f"job {n}", config) for n, config in enumerate(jobs)])
    sweep.record(0, Outcome("failed", reason="file in the way", folder=str(run_folder(jobs[0]).path)))
    with trained(running):
        assert main(["status"]) == 0
    printed = capsys.readouterr().out
    assert " ".join(printed.split("configuration")[0].split()).startswith(
        "9 runs: 1 running, 2 failed, 2 interrupted, 1 damaged, 2 finished, 1 diverged; 1 not begun; time left 0:0"
    )
    assert [(row[1], *row[2:5]) for row in rows_of(printed) if row[0] == "wd"] == [
        ("0.2", "2", "running", "6/10"),
        ("0.4", "0", "failed", "3/10"),
        ("0.2", "0", "interrupted", "4/10"),
        ("0.2", "1", "interrupted", "0/10"),
        ("0.3", "0", "damaged", "10/10"),
        *best_first(),
        ("0.5", "0", "diverged", "2/10"),
    ]
    assert "failed: wd 0.4, seed 0: CUDA out of memory" in printed
    assert "file in the way" in printed
    assert "Second line" not in printed
    assert "of long ago" not in printed
    assert main(["status", "outputs/some"]) == 0
    assert "running" not in capsys.readouterr().out


def test_a_plan_of_a_machine_without_the_gpu_of_those_that_train_becomes_theirs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The login node plans five seeds in 32-true; the jobs run as another configuration, three have come to an end."""
    planned = [replace(base(), seed=seed) for seed in range(5)]
    there = replace(base().trainer, precision="16-mixed")
    sweep = SweepFolder.open("some")
    os.environ.pop(SweepFolder.VARIABLE)
    sweep.plan([(f"seed={config.seed}", config) for config in planned])
    for seed in range(3):
        folder = begun(10, "finished", seed=seed, trainer=there)
        assert folder.path.parent != run_folder(planned[seed]).path.parent
        sweep.record(seed, Outcome("finished", folder=str(folder.path)))
    running = begun(2, seed=3, trainer=there)
    surveyor = StateReader([Path("outputs")])
    waiting = surveyor.look(0.0).waiting
    assert [job.run.split("/")[1:] for job in waiting] == [[running.path.parent.name, "seed=4"]]
    assert planned_seeds([running.path]) == {("some", running.path.parent.name): {0, 1, 2, 3, 4}}
    for seed in (3, 4):
        sweep.record(seed, Outcome("finished", folder=str(begun(10, "finished", seed=seed, trainer=there).path)))
    assert not surveyor.look(0.0).waiting
    assert main(["status"]) == 0
    assert capsys.readouterr().out.startswith("5 runs: 5 finished\n")


def best_first() -> list[tuple[str, str, str, str]]:
    """The two finished runs, whose accuracies depend on chance."""
    best = {seed: max(row["val/acc"] for row in synthetic_rows(10, 0.9, seed)) for seed in (0, 1)}
    return [("0.1", str(seed), "finished", "10/10") for seed in sorted(best, key=lambda seed: -best[seed])]


@linux
def test_a_lock_is_looked_at_and_not_taken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = begun(1)
    folder.lock.unlink()
    assert Locks.look().held(folder.lock) is False
    assert not folder.lock.exists()
    with trained(folder) as process:
        assert Locks.look().held(folder.lock) is True
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert Locks.look().held(folder.lock) is False

    def taken(*_: object) -> None:
        raise AssertionError("a run that starts at this moment would find its lock taken")

    for name in ("flock", "lockf", "fcntl"):
        monkeypatch.setattr(fcntl, name, taken)
    assert main(["status"]) == 0
    assert "1 interrupted" in capsys.readouterr().out


def test_what_cannot_be_told_is_unfinished(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = begun(4, wd=0.2)
    assert Locks().held(folder.lock) is None  # no /proc/locks
    assert Locks({}, {"/": "nfs4"}).held(folder.lock) is None  # a process of another machine may hold it
    assert Locks({}, {"/": "nfs4", str(Path.cwd()): "ext4"}).held(folder.lock) is False
    file = folder.lock.stat()
    assert Locks({file.st_ino: [(file.st_dev, 1)]}, {"/": "nfs4"}).held(folder.lock) is True
    assert Locks({file.st_ino: [(file.st_dev + 1, 1)]}, {"/": "ext4"}).held(folder.lock) is False  # another disk's
    with folder.lock.open():  # as on btrfs
        assert Locks({file.st_ino: [(file.st_dev + 1, os.getpid())]}, {"/": "ext4"}).held(folder.lock) is True
    monkeypatch.setattr(Locks, "look", Locks)
    assert main(["status"]) == 0
    assert "1 run: 1 unfinished\n" in capsys.readouterr().out


def test_the_lists_of_the_system_are_read_by_hand_made_examples() -> None:
    text = (
        "1: FLOCK  ADVISORY  WRITE 5055 fe:00:2146742 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 7 fe:00:2146742 0 EOF\n"
        "2: POSIX  ADVISORY  WRITE 9 00:1a:11 0 EOF\n3: FLOCK  ADVISORY  READ 9 00:1a:12 0 EOF\nsomething else\n"
    )
    assert parse_locks(text) == {2146742: [(os.makedev(0xFE, 0), 5055)]}
    mounts = (
        "27 1 254:0 / / rw - ext4 /dev/vda rw\n30 27 0:44 / /mnt/a\\040b rw shared:1 - nfs4 host:/x rw\n"
        "31 27 0:45 / /mnt rw - tmpfs tmpfs rw\n"
    )
    found = Locks({}, parse_mounts(mounts))
    places = ("/home/x", "/mnt/a b/x", "/mnt/ab", "/mnter/x")
    assert [found.file_system(place) for place in places] == ["ext4", "nfs4", "tmpfs", "ext4"]


@pytest.mark.parametrize("overrides", ["", "data.limit=50 study=2026 momentum=0.95 averaging=ema lr=1e-4"])
def test_the_settings_are_those_that_a_yaml_parser_reads(overrides: str) -> None:
    text = to_yaml(compose("data=digits", *overrides.split()))
    whole = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(whole, dict)
    wanted = {key: value for key, value in whole.items() if not isinstance(value, dict | list)}
    wanted |= {group: whole[group]["name"] for group in GROUPS} | {"subset": whole["data"]["limit"]}
    found = settings(text)
    found.pop("snapshots")  # an empty list
    assert found == wanted


def test_time_left_by_hand() -> None:
    one, other = (FactsReader()(begun(4, wd=wd).path) for wd in (0.1, 0.2))
    assert one is not None
    assert other is not None
    assert one.changed is not None

    def left(facts: RunFacts, passed: float) -> float | None:
        from resnetlab.runs.state import seconds_left

        return seconds_left(facts, (facts.changed or 0.0) + passed)

    assert left(one, 0.0) == 180.0
    assert left(one, 12.0) == 168.0
    assert left(one, 500.0) == 150.0  # the sixth epoch may end at any moment, and is not over
    assert left(one, -500.0) == 180.0  # a clock that was set
    assert left(replace(one, epochs=None), 0.0) is None
    assert left(replace(one, seconds=None), 0.0) is None
    shorter = RunState(replace(other, seconds=10.0), "running", "", left=60.0)
    states = [RunState(one, "running", "", left=180.0), shorter]
    sweep = SweepFolder.open("some")
    os.environ.pop(SweepFolder.VARIABLE)
    sweep.plan([("", replace(base(), wd=wd)) for wd in (0.1, 0.2, 0.3, 0.4)])
    waiting = StateReader([Path("outputs")]).look(0.0).waiting
    assert [job.run for job in waiting] == [
        "/".join(run_folder(replace(base(), wd=wd)).path.parts[1:]) for wd in (0.3, 0.4)
    ]
    assert RunStates(states).left() == 180.0  # the longer one
    assert RunStates(states, waiting).left() == (180 + 60 + 2 * 10 * 20) / 2
    assert RunStates([*states, RunState(one, "running", "")]).left() is None
    assert (duration(93784), duration(59.6), age(59), age(150), age(7200), age(200_000)) == (
        *("26:03:04", "0:01:00"),
        *("59s", "2m", "2h", "2d"),
    )


def test_only_what_has_changed_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [begun(3, wd=wd) for wd in (0.1, 0.2, 0.3)]
    reads: list[Path] = []
    original = facts_module.read

    def read(path: Path, found: facts_module.Stamps) -> RunFacts:
        reads.append(path)
        return original(path, found)

    monkeypatch.setattr(facts_module, "read", read)
    surveyor = StateReader([Path("outputs")])
    surveyor.look(0.0)
    surveyor.look(0.0)
    assert len(reads) == 3
    begun(4, wd=0.2)
    assert {run.facts.done for run in surveyor.look(0.0).runs} == {3, 4}
    assert reads[3:] == [folders[1].path]
    shutil.rmtree(folders[0].path)
    assert len(surveyor.look(0.0).runs) == 2
    assert surveyor.reader(folders[0].path) is None
    assert len(reads) == 4


@pytest.mark.parametrize("name", ["config.yaml", "manifest.json", "metrics.csv", "summary.json"])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"{", b"[]", b"a,b\n1\n", b'{"epochs": 1e999}', None, "pipe"]
)
def test_no_file_of_any_content_is_a_traceback(
    name: str, content: bytes | str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = begun(4, wd=0.1).path / name
    path.unlink(missing_ok=True)
    if content is None:
        path.mkdir()
    elif isinstance(content, str):
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    assert main(["status"]) == 0
    assert capsys.readouterr().out.startswith("1 run: 1 ")


def test_odd_folders_are_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    begun(3)
    Path("outputs/some/a/seed=x").mkdir(parents=True)
    Path("outputs/some/a/seed=1").symlink_to("nowhere")
    Path("outputs/some/loop").symlink_to("..")
    Path("outputs/some/sweeps/x").mkdir(parents=True)
    for name, text in {"sweep.json": '{"jobs": [1, {"run": "../x"}]}', "job-0.json": "[]", "job-x.json": "{"}.items():
        Path("outputs/some/sweeps/x", name).write_text(text)
    assert main(["status"]) == 0
    assert capsys.readouterr().out.startswith("2 runs: 2 interrupted\n")


def test_nothing_to_show_is_one_line_and_no_torch() -> None:
    Path("empty").mkdir()
    code = (
        "import sys; from resnetlab.cli import main; s = main(sys.argv[1:]); print('torch' in sys.modules); sys.exit(s)"
    )
    for folder, wanted in (("empty", (0, "no runs below empty\nFalse\n", "")), ("nowhere", (2, "False\n", "error"))):
        done = subprocess.run(
            [sys.executable, "-c", code, "status", folder], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout, done.stderr[:5]) == wanted
        assert done.stderr.count("\n") == (folder == "nowhere")


def test_without_a_terminal_it_is_plain_and_80_columns_wide(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("COLUMNS", raising=False)
    begun(10, "finished", study="a")
    name = "b" * 60
    begun(4, study=name)
    assert main(["status"]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert name in "".join(line.split(" ")[0] for line in printed.splitlines())  # folded, not cut
    assert "..." not in printed


@pytest.fixture
def many() -> Path:
    """500 finished runs."""
    one = begun(10, "finished").path
    summary = json.loads((one / "summary.json").read_text())
    for number in range(499):
        other = one.parents[1] / f"c{number}" / f"seed={number % 5}"
        shutil.copytree(one, other)
        (other / "summary.json").write_text(json.dumps({**summary, "wd": number / 1000, "seed": number % 5}))
    return one.parents[2]


def test_500_runs_are_few_rows_and_each_file_is_opened_once(
    many: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    original = io.open

    def listen(file, *arguments, **keywords):
        opened.append(os.path.basename(file))
        return original(file, *arguments, **keywords)

    monkeypatch.setattr(io, "open", listen)  # what pathlib opens with
    surveyor = StateReader([many])
    for _ in range(2):
        found = surveyor.look(0.0)
    counts = Counter(name for name in opened if name in FILES)
    assert counts == {"config.yaml": 500, "manifest.json": 500, "summary.json": 500}
    console = Console(width=80, height=24, force_terminal=True)
    lines = console.render_lines(fitting(found, console), console.options.update(height=None))
    assert 20 <= len(lines) <= 23
    assert main(["status"]) == 0
    printed = capsys.readouterr().out
    assert "... and 450 more: 450 finished; --all prints every run\n" in printed
    Console(width=80).print(show(found, 500, 0.0))
    assert capsys.readouterr().out.count(" finished ") == 500


@linux
def test_on_a_terminal_it_follows_the_runs_until_ctrl_c() -> None:
    folder = begun(3, wd=0.1)
    parent, child = pty.openpty()
    code = "import sys; from resnetlab.cli import main; sys.exit(main(['status']))"
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "24"}
    with trained(folder):
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=child,
            stdin=child,
            stderr=child,
            env=environment,
            preexec_fn=heed_interrupts,
        )
        try:
            seen = wait_for(parent, lambda text: "running" in text and "3/10" in text)
            begun(4, wd=0.1)
            seen = wait_for(parent, lambda text: "4/10" in text)
            assert "\x1b[1A" in seen  # goes up to write over itself
            process.send_signal(signal.SIGINT)
            seen = wait_for(parent, lambda text: "\x1b[?25h" in text)  # gives the cursor back
            assert process.wait(10) == 0
            assert "Traceback" not in seen
        finally:
            process.kill()
            process.wait()
            os.close(parent)
            os.close(child)


def wait_for(terminal: int, condition: Callable[[str], bool]) -> str:
    """What the terminal shows until then."""
    text, end = "", time.monotonic() + 30
    while not condition(text):
        assert time.monotonic() < end, text
        if select.select([terminal], [], [], 0.2)[0]:
            text += os.read(terminal, 65536).decode(errors="replace")
    return text
