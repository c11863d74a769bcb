"""Printing to a console that may be closed or know few characters, durations, a countdown, errors nobody has caught."""

import codecs
import io
import logging
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from rich import console as rich
from rich.segment import Segment

# names and messages from run folders may hold them: a terminal obeys the first two, and shows text in another order
# after the others. Lines and tabs stay.
CONTROL_CODES = {*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)} - {9, 10}
PLAIN = str.maketrans(dict.fromkeys(map(chr, CONTROL_CODES), "\N{REPLACEMENT CHARACTER}"))
ASCII = str.maketrans({"±": "+-", "–": "-", "×": "x", "→": "->", "…": "..."})  # noqa: RUF001
MOST_CHARACTERS = 1200  # of an error's line
TRAIN_COMMAND = "resnetlab train" if Path(__file__).with_name("conf").is_dir() else "python train.py"  # wheel or clone


def installed_version(package: str) -> str:
    """The version of an installed package; "unknown" for one that is not, as this one run from its source tree."""
    return next((found.version for found in distributions(name=package)), "unknown")


def tolerant_output() -> None:
    """Makes standard output and error replace characters that their encoding lacks. Call it first in every process."""
    codecs.register_error("resnetlab", replacement)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="resnetlab")


def replacement(error: UnicodeError) -> tuple[str, int]:
    """ASCII for the characters that cannot be encoded: "+-" for a plus-minus sign, "?" for an unknown one."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(ASCII)
    return text.encode("ascii", "replace").decode(), error.end


def plain(text: str) -> str:
    """The text without what would command a terminal: escape sequences and other control codes."""
    return text.translate(PLAIN)


class Console(rich.Console):
    """Rich's console, for texts from run folders: their control codes are not sent to the terminal."""

    def render(self, *arguments: Any, **options: Any) -> Iterable[Segment]:
        for text, style, control in super().render(*arguments, **options):
            yield Segment(text if control else plain(text), style, control)


def on_terminal() -> bool:
    """Whether the output goes to a terminal, where it may be drawn over."""
    return sys.stdout is not None and sys.stdout.isatty()  # None: closed by the shell, >&-


def say(line: str) -> None:
    """Print the line at once; discard it and all later ones when the reader has gone (`train.py | head`)."""
    try:
        print(plain(line), flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (stays open until the process ends)


def print_stderr(line: str) -> None:
    """Print the text as one line on standard error, the middle of a very long one left out."""
    line = line.replace("\n", "\\n")
    if len(line) > MOST_CHARACTERS:
        line = f"{line[: MOST_CHARACTERS // 2]} ... {line[-MOST_CHARACTERS // 2 :]}"
    try:
        print(plain(line), file=sys.stderr, flush=True)
    except OSError:  # as in `say`
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def interrupted(stop: KeyboardInterrupt) -> int:
    """Print one line on stderr, the interrupt's own if it has one. Return the shell's status for Ctrl-C, 130."""
    print_stderr(str(stop) or "interrupted")
    return 130


def unexpected(error: BaseException) -> int:
    """Print one line about an error that nobody foresaw, and where its traceback is; return the exit status, 1."""
    if "No usable temporary directory" in str(error):
        print_stderr(f"error: {error}; free a disk, lift a limit (ulimit -f), or set TMPDIR to a folder for such files")
        return 1
    try:
        descriptor, log = tempfile.mkstemp(prefix="resnetlab-", suffix=".log")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            traceback.print_exception(error, file=file)
    except OSError as problem:
        log = f"cannot be written ({problem})"
    first = (str(error).splitlines() or [""])[0]
    print_stderr(f"error: unexpected {type(error).__name__}: {first}; traceback: {log}")
    return 1


def guarded(main: Callable[[], int]) -> int:
    """The exit status of an entry point, which prints one line for any error."""
    tolerant_output()
    os.environ["MPLBACKEND"] = "agg"  # pictures are files; matplotlib refuses to be imported with an unknown one
    if re.fullmatch(r"0*1?\d", os.environ.get("COLUMNS", "")):  # Rich prints nothing at 0, and no word below 20
        del os.environ["COLUMNS"]
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns where it cannot keep its cache
    try:
        Path.cwd()
    except OSError:
        print_stderr("error: the working folder has been removed or cannot be read; cd into another one")
        return 2
    try:
        return main()
    except Exception as error:
        return unexpected(error)


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds: "26:03:04"; "?" for None."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def age(seconds: float) -> str:
    """The largest unit alone: "12s", "5m", "3h", "2d"."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


class Countdown:
    """Progress of a long loop, printed with the time left: at most one line every `seconds`."""

    def __init__(self, what: str, total: int, seconds: float = 10.0) -> None:
        self.what, self.total, self.seconds = what, total, seconds
        self.done, self.start = 0, time.monotonic()
        self.said = self.start

    def tick(self) -> None:
        """Count one more part as done."""
        self.done += 1
        now = time.monotonic()
        if now - self.said >= self.seconds and self.done < self.total:
            self.said = now
            left = (now - self.start) / self.done * (self.total - self.done)
            say(f"{self.what} {self.done} of {self.total}  left {duration(left)}")
