"""Tests run in an empty folder, on one thread, on the embedded digits and the smallest network of the family."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from resnetlab import Config, compose

TINY = ("model=resnet20v2", "model.depth=11", "data=digits", "data.limit=60", "batch_size=32", "trainer.progress=off")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Outputs go below the current folder: each test gets its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(*overrides: str) -> Config:
    """A configuration that trains in a second or two: 60 images in two steps an epoch, three epochs."""
    return compose(*TINY, "epochs=3", *overrides)
