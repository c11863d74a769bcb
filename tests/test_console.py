"""Printing: durations, what a terminal must not be sent, characters that an encoding lacks, errors nobody foresaw."""

import io
import logging
import os
import re
import sys
import tempfile
from pathlib import Path

import pytest

from resnetlab import cli
from resnetlab.cli import train_main as main
from resnetlab.console import Console, Countdown, age, duration, guarded, plain, print_stderr, say, tolerant_output


def test_durations_by_hand() -> None:
    assert (duration(93784), duration(59.6), duration(None)) == ("26:03:04", "0:01:00", "?")
    assert [age(seconds) for seconds in (59, 150, 7200, 200_000)] == ["59s", "2m", "2h", "2d"]


CODES = ["\x1b[31m", "\x1b]0;title\x07", "\x9b2J", "\x08\x08", "\r", "\x7f", "\u202e", "\u2066", "\x00", "\x1b[2A"]


@pytest.mark.parametrize("code", CODES)
def test_control_codes_never_reach_the_terminal(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"a{code}b")
    print_stderr(f"a{code}b")
    Console(force_terminal=True, color_system="truecolor").print(f"a{code}b", style="red")
    printed = capsys.readouterr()
    coloured = re.sub(r"\x1b\[[0-9;]*m", "", printed.out.splitlines()[-1])
    characters = {*printed.out.splitlines()[0], *coloured, *printed.err.rstrip("\n")}
    assert not characters & set("\x1b\x07\x9b\x08\r\x7f\u202e\u2066\x00")
    assert plain("ä\tb\n→ 数") == "ä\tb\n→ 数"


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "+-"), ("latin-1", "±"), ("cp437", "±"), ("utf-8", "±")])
def test_characters_that_the_encoding_lacks_are_replaced(
    encoding: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    tolerant_output()
    say("0.9 ± 0.1 \N{EN DASH} 数据 → é")
    Console(width=60).print("0.9 ± 0.1 │ 数据")
    stream.flush()
    text = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert text.count(f"0.9 {shown} 0.1") == 2


@pytest.mark.parametrize("entry_point", [main, cli.main])
@pytest.mark.parametrize(
    "error", [RecursionError("deep\nlines"), TypeError(), MemoryError("much"), KeyError("x" * 9000)]
)
def test_an_error_that_nobody_foresaw_is_one_line_and_a_log(
    error: Exception, entry_point, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("resnetlab.config.help_and_completion.help_text", fail)
    monkeypatch.setattr("resnetlab.config.help_and_completion.options_text", fail)
    assert entry_point(["--help"] if entry_point is main else ["options"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 2000
    assert line.startswith(f"error: unexpected {type(error).__name__}: ")
    log = Path(line.rpartition("traceback: ")[2])
    assert "in fail" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_interrupts_pass_the_last_net(stop: type[BaseException]) -> None:
    def end() -> int:
        raise stop

    with pytest.raises(stop):
        guarded(end)


@pytest.mark.parametrize("arguments", [(main, ["lr=1"]), (main, ["--help"]), (cli.main, ["options"])])
def test_a_working_folder_that_was_removed_is_one_line(
    arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    try:
        assert arguments[0](arguments[1]) == 2
    finally:
        os.chdir(tmp_path)
    assert capsys.readouterr().err == (
        "error: the working folder has been removed or cannot be read; cd into another one\n"
    )


@pytest.mark.parametrize("columns", ["0", "00", "1", "19"])
def test_what_the_environment_says_wrongly_is_left_aside(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    assert guarded(lambda: Console().width) >= 20
    assert os.environ["MPLBACKEND"] == "agg"
    assert not logging.getLogger("matplotlib.font_manager").isEnabledFor(logging.WARNING)


def test_without_a_temporary_folder_the_cure_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/no/such/folder"])
    assert guarded(lambda: len(tempfile.gettempdir())) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "No usable temporary directory found in ['/no/such/folder']; free a disk" in said
    assert "TMPDIR" in said


def test_a_countdown_tells_the_time_left_by_the_parts_that_are_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr("resnetlab.console.time.monotonic", lambda: now[0])
    countdown = Countdown("step", 10)
    for _ in range(10):
        now[0] += 4.0
        countdown.tick()
    left = [f"step {done} of 10  left {duration(4 * (10 - done))}" for done in (3, 6, 9)]  # at most every ten seconds
    assert capsys.readouterr().out.splitlines() == left


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_an_error_for_a_reader_who_has_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Gone())
    for _ in range(2):
        print_stderr("job 0 failed")
    sys.stderr.close()
