"""`resnetlab status`: the table of all runs, plain or on a terminal."""

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
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from test_resume import heed_interrupts

from resnetlab.cli import main
from resnetlab.report.status import fit_to_terminal, label_runs, render
from resnetlab.runs.layout import RUN_FILES
from resnetlab.runs.state import StateReader
from resnetlab.runs.sweep_records import Outcome, SweepFolder
from synthetic import begin_run, synthetic_rows, ten_epochs, trained


def rows_of(printed: str) -> list[list[str]]:
    """The cells of the table's rows, which are here too short to be folded."""
    lines = printed.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("configuration"))
    found = (re.split(r" {2,}|(?<=\S) (?=\S+ *$)", line.strip()) for line in lines[start + 1 :])
    return [row for row in (" ".join(cells).split() for cells in found) if row and row[0] == "wd"]


def test_the_table_says_of_every_run_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    begin_run(10, "finished", wd=0.1)
    begin_run(10, "finished", wd=0.1, seed=1)
    begin_run(2, "diverged", wd=0.5)
    begin_run(4, wd=0.2)
    begin_run(0, wd=0.2, seed=1)
    damaged = begin_run(10, "finished", wd=0.3)
    damaged.summary.write_text(damaged.summary.read_text()[:40])
    failed = begin_run(3, wd=0.4)
    running = begin_run(6, wd=0.2, seed=2)
    sweep = SweepFolder.open("some")
    sweep.record(3, Outcome("failed", reason="CUDA out of memory\nSecond line", folder=str(failed.path)))
    sweep.record(4, Outcome("failed", reason="of long ago", folder=str(replace(ten_epochs(), wd=0.2).folder.path)))
    os.utime(sweep.path / "job-4.json", (1, 1))
    older = SweepFolder.open("older")
    older.record(0, Outcome("failed", reason="an old reason", folder=str(failed.path)))
    hour_ago = time.time() - 3600
    for path in (*failed.path.rglob("*"), failed.path):
        os.utime(path, (hour_ago - 60, hour_ago - 60))
    os.utime(older.path / "job-0.json", (hour_ago, hour_ago))
    jobs = [replace(ten_epochs(), wd=0.6), replace(ten_epochs(), wd=0.6, seed=1), replace(ten_epochs(), wd=0.1)]
    sweep.write_plan((f"job {n}", config) for n, config in enumerate(jobs))
    sweep.record(0, Outcome("failed", reason="file in the way", folder=str(jobs[0].folder.path)))
    with trained(running):
        assert main(["status"]) == 0
    printed = capsys.readouterr().out
    headline = " ".join(printed.split("configuration")[0].split())
    assert headline.startswith(
        "9 runs: 1 running, 2 failed, 2 interrupted, 1 damaged, 2 finished, 1 diverged; 1 not begun; time left 0:0"
    )
    assert headline.endswith("; sorted by state, then best")
    best = {seed: max(row["val/acc"] for row in synthetic_rows(10, 0.9, seed)) for seed in (0, 1)}
    assert [(row[1], *row[2:5]) for row in rows_of(printed) if row[0] == "wd"] == [
        ("0.2", "2", "running", "6/10"),
        ("0.4", "0", "failed", "3/10"),
        ("0.2", "0", "interrupted", "4/10"),
        ("0.2", "1", "interrupted", "0/10"),
        ("0.3", "0", "damaged", "10/10"),
        *(("0.1", str(seed), "finished", "10/10") for seed in sorted(best, key=lambda seed: -best[seed])),
        ("0.5", "0", "diverged", "2/10"),
    ]
    assert "failed: wd 0.4, seed 0: CUDA out of memory" in printed
    assert "an old reason" not in printed
    assert "file in the way" in printed
    assert "Second line" not in printed
    assert "of long ago" not in printed
    assert main(["status", "outputs/some"]) == 0
    assert "running" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["config.yaml", "manifest.json", "metrics.csv", "summary.json"])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"{", b"[]", b"a,b\n1\n", b'{"epochs": 1e999}', None, "pipe"]
)
def test_no_file_of_any_content_is_a_traceback(
    name: str, content: bytes | str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = begin_run(4, wd=0.1).path / name
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
    begin_run(3)
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
    code = "import sys; from resnetlab.cli import main; s = main(); print('torch' in sys.modules); sys.exit(s)"
    for folder, wanted in (("empty", (0, "no runs below empty\nFalse\n", "")), ("nowhere", (2, "False\n", "error"))):
        command = [sys.executable, "-c", code, "status", folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr[:5]) == wanted
        assert done.stderr.count("\n") == (folder == "nowhere")


def test_without_a_terminal_it_is_plain_and_80_columns_wide(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("COLUMNS", raising=False)
    begin_run(10, "finished", study="a")
    name = "b" * 60
    begin_run(4, study=name)
    assert main(["status"]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert name in "".join(line.split(" ")[0] for line in printed.splitlines())  # folded, not cut
    assert "..." not in printed


def test_500_runs_are_few_rows_and_each_file_is_opened_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = begin_run(10, "finished").path
    summary, manifest = (json.loads((one / f"{name}.json").read_text()) for name in ("summary", "manifest"))
    for number in range(499):
        other = one.parents[1] / f"c{number}" / f"seed={number % 5}"
        shutil.copytree(one, other)
        own = {"wd": number / 1000, "seed": number % 5}
        (other / "summary.json").write_text(json.dumps(summary | own))
        (other / "manifest.json").write_text(json.dumps(manifest | {"config": manifest["config"] | own}))
    opened: list[str] = []
    original = io.open

    def count(file, *arguments, **keywords):
        opened.append(os.path.basename(file))
        return original(file, *arguments, **keywords)

    monkeypatch.setattr(io, "open", count)  # what pathlib opens with
    reader = StateReader([one.parents[2]], label_runs)
    for _ in range(2):
        found = reader.read(0.0)
    counts = Counter(name for name in opened if name in RUN_FILES)
    assert counts == {"manifest.json": 500, "summary.json": 500}
    console = Console(width=80, height=24, force_terminal=True)
    lines = console.render_lines(fit_to_terminal(found, console), console.options.update(height=None))
    assert 20 <= len(lines) <= 23
    assert main(["status"]) == 0
    printed = capsys.readouterr().out
    assert "... and 450 more: 450 finished; --all prints every run\n" in printed
    Console(width=80).print(render(found, 500, 0.0))
    assert capsys.readouterr().out.count(" finished ") == 500


def test_on_a_terminal_it_follows_the_runs_until_ctrl_c() -> None:
    folder = begin_run(3, wd=0.1)
    parent, child = pty.openpty()
    code = "import sys; from resnetlab.cli import main; sys.exit(main(['status']))"
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "24"}
    with trained(folder):
        command, ends = [sys.executable, "-c", code], dict.fromkeys(("stdin", "stdout", "stderr"), child)
        process = subprocess.Popen(command, env=environment, preexec_fn=heed_interrupts, **ends)
        try:
            seen = wait_for(parent, lambda text: "running" in text and "3/10" in text)
            begin_run(4, wd=0.1)
            seen = wait_for(parent, lambda text: "4/10" in text)
            assert "\x1b[1A" in seen  # goes up to write over itself
            process.send_signal(signal.SIGINT)
            seen = wait_for(parent, lambda text: "\x1b[?25h" in text)  # gives the cursor back
            assert process.wait(600) == 0
            assert "Traceback" not in seen
        finally:
            process.kill()
            process.wait()
            os.close(parent)
            os.close(child)


def test_two_folders_of_equal_names_are_two_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Of which the second's job has failed, after it was interrupted like the first's."""
    first = begin_run(3, wd=0.4)
    shutil.copytree("outputs", "others")
    copied = Path("others") / first.path.relative_to("outputs")
    sweep = SweepFolder(copied.parents[1] / "sweeps" / "later")
    sweep.path.mkdir(parents=True)
    sweep.record(0, Outcome("failed", reason="a full disk", folder=str(copied)))
    assert main(["status", "--once", "outputs", "others"]) == 0
    assert capsys.readouterr().out.startswith("2 runs: 1 failed, 1 interrupted")


def wait_for(terminal: int, condition: Callable[[str], bool]) -> str:
    """What the terminal shows until then."""
    text, end = "", time.monotonic() + 600  # on a busy machine
    while not condition(text):
        assert time.monotonic() < end, text
        if select.select([terminal], [], [], 0.2)[0]:
            text += os.read(terminal, 65536).decode(errors="replace")
    return text
