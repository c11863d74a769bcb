"""Atomic writes of small files, CSV that reads back exactly, data files of the package, and digests."""

import csv
import errno
import hashlib
import io
import json
import os
import secrets
import stat
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from resnetlab.errors import ConfigError

FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # and their full-width forms


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call write(file) on a temporary file beside `path`, and rename it when its bytes are on the disk.

    A kill leaves the old file or the new one, never half of either.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)  # a full disk does not say which file it was
        raise


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON. Raises ValueError for NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_text(path: Path) -> str:
    """The text of a regular file. Raises OSError for a pipe or a device, which might be read without end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return path.read_text(encoding="utf-8")


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises OSError, and ValueError for what is no JSON or nested without end."""
    try:
        return json.loads(read_text(path))
    except RecursionError:
        raise ValueError(f"{path} is nested too deep") from None


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV with the columns of all rows in order of appearance; numbers read back exactly, texts are safe."""
    write_text(path, records_csv(rows))


def records_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A CSV with the columns of all rows in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return csv_text([columns, *([row.get(key) for key in columns] for row in rows)])


def csv_text(rows: Sequence[Sequence[Any]]) -> str:
    """The rows as CSV, numbers at full precision, texts by safe_cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([safe_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


@cache
def data_beside(module: str, name: str) -> dict[str, Any]:
    """The TOML file in the folder of a module's file, read once."""
    return tomllib.loads(Path(module).with_name(name).read_text(encoding="utf-8"))


def read_rows(path: Path) -> list[dict[str, float]]:
    """Rows of a CSV by write_rows: empty cells are left out, whole numbers stay whole."""
    return [
        {key: int(cell) if cell.lstrip("-").isdigit() else float(cell) for key, cell in row.items() if cell}
        for row in csv.DictReader(io.StringIO(read_text(path), newline=""))
    ]


def safe_cell(value: Any) -> Any:
    """A CSV cell that no spreadsheet takes for a formula: a text that may begin one gets an apostrophe in front.

    Numbers, and texts that are numbers, are left alone. A carriage return, which would begin a row, becomes a space.
    """
    if not isinstance(value, str):
        return value
    value = value.replace("\r", " ")
    if not value.lstrip().startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def digest(content: Any, digits: int = 8) -> str:
    """The first hexadecimal digits of the SHA-256 of plain data, as in the names of run folders."""
    return sha256(json.dumps(content, sort_keys=True).encode(), digits)


def sha256(content: bytes, digits: int = 16) -> str:
    """The first hexadecimal digits of the SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()[:digits]


def make_folder(folder: Path) -> None:
    """Make the folder of --out before the work is done. Raises ConfigError where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out (={folder}) cannot be made: {error.strerror}") from None
