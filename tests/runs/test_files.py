"""Small files: exact round trips, and never half a file."""

import errno
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnetlab.runs.files import read_json, read_rows, write_atomically, write_json, write_rows, write_text

numbers = st.one_of(st.integers(-(10**9), 10**9), st.floats(allow_nan=False))


@given(st.lists(st.fixed_dictionaries({"epoch": st.integers(1, 9999), "x/y": numbers}), min_size=1))
def test_rows_read_back_exactly(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, float]]) -> None:
    path = tmp_path_factory.mktemp("rows") / "metrics.csv"
    write_rows(path, rows)
    assert read_rows(path) == rows
    for row, back in zip(rows, read_rows(path), strict=True):
        assert {key: type(value) for key, value in row.items()} == {key: type(value) for key, value in back.items()}


def test_a_column_that_begins_later_is_empty_before(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    write_rows(path, [{"epoch": 1}, {"epoch": 2, "late": math.inf}])
    assert path.read_text() == "epoch,late\n1,\n2,inf\n"
    assert read_rows(path) == [{"epoch": 1}, {"epoch": 2, "late": math.inf}]


def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def fail(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nan"):
        write_json(tmp_path / "x.json", {"a": math.nan})


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{", "", "\0", "\xff", "NaN 1", "1e", "[1,]"])
def test_what_is_no_json_is_a_value_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"."):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("read", [read_json, read_rows])
def test_a_pipe_a_device_and_a_folder_are_not_read(read, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "link").symlink_to("fifo")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "zero", "link", "folder"):
        with pytest.raises(OSError, match=rf"is not a regular file: '.*{name}'"):
            read(tmp_path / name)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG])
def test_an_error_of_the_disk_names_the_file(number: int, tmp_path: Path) -> None:
    def fail(file: object) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(OSError, match=r"\[Errno \d+\] .*: '.*summary.json'$"):
        write_atomically(tmp_path / "summary.json", fail)


def test_rows_with_other_line_ends_and_quotes(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b'epoch,"a"\r\n1,"2.5"\r\n')
    assert read_rows(tmp_path / "m.csv") == [{"epoch": 1, "a": 2.5}]


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", " =1", "-x"])
def test_every_text_of_a_table_is_safe(tmp_path: Path, text: str) -> None:
    write_rows(path := tmp_path / "a.csv", [{text: text, "n": -1.5}, {text: "plain", "late": None}])
    assert path.read_text() == f"'{text},n,late\n'{text},-1.5,\nplain,,\n"
