"""Small files, written so that a kill leaves the old one or the new one, never half of either."""

import csv
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from resnetlab.errors import ConfigError


def write_atomically(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Calls write(file) on a temporary file beside `path`, and renames it when its bytes are on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".part", delete=False) as file:
        try:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            os.unlink(file.name)
            raise
    os.chmod(file.name, 0o666 & ~_umask())
    try:
        os.replace(file.name, path)
    except OSError:
        os.unlink(file.name)
        raise


def write_text(path: Path, text: str) -> None:
    def write(file: IO[bytes]) -> None:
        file.write(text.encode())

    write_atomically(path, write)


def write_json(path: Path, content: Any) -> None:
    """Raises ValueError for NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_rows(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """A CSV with the columns of all rows in order of appearance; numbers are written so that they read back exactly."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [",".join(columns)]
    lines += [",".join("" if key not in row else repr(row[key]) for key in columns) for row in rows]
    write_text(path, "\n".join(lines) + "\n")


def read_rows(path: Path) -> list[dict[str, float]]:
    """What write_rows wrote; empty cells are left out, whole numbers stay whole."""
    with path.open(newline="") as file:
        return [{key: _number(cell) for key, cell in row.items() if cell} for row in csv.DictReader(file)]


def _number(cell: str) -> float:
    return int(cell) if cell.lstrip("-").isdigit() else float(cell)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def digest(content: Any) -> str:
    """Eight letters that stand for plain data, as in the names of run folders."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def make_folder(folder: Path) -> None:
    """Raises ConfigError where no folder can be made, before the work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out (={folder}) cannot be made: {error.strerror}") from None
