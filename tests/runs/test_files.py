"""Small files: exact round trips, and never half a file."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnetlab.runs.files import read_rows, write_atomically, write_json, write_rows, write_text

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
