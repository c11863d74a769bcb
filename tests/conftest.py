"""Tests run in an empty folder, on one thread, on the embedded digits and the smallest network of the family."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from resnetlab import Config, compose
from resnetlab.config.option_files import conf_dir
from resnetlab.sweeps.main import main

TINY = ("model=resnet20v2", "model.depth=11", "data=digits", "data.limit=60", "batch_size=32", "trainer.progress=off")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Outputs go below the current folder: each test gets its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESNETLAB_CACHE", str(tmp_path / "cache"))
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


@pytest.fixture(scope="session")
def finished_outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of run(tiny()), trained once for all tests; they are not to be changed."""
    from resnetlab import run  # brings Lightning

    torch.set_num_threads(1)  # before the fixture below
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder := tmp_path_factory.mktemp("finished"))
        run(tiny())
    return folder / "outputs"


@pytest.fixture
def finished(finished_outputs: Path, empty_folder: Path) -> Config:
    """The configuration of a finished run, whose files are copied into the test's folder."""
    shutil.copytree(finished_outputs, empty_folder / "outputs")
    return tiny()


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a sweep of tiny runs in this process; (exit status, standard output, standard error)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["train.py"])
        status = main([*TINY, "-m", *arguments])
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def preset(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Makes an experiment=mine of these lines, in a copy of conf/."""
    folder: Path = tmp_path_factory.mktemp("conf") / "conf"
    shutil.copytree(conf_dir(), folder)
    for module in ("config.compose", "sweeps.command"):
        monkeypatch.setattr(f"resnetlab.{module}.conf_dir", lambda: folder)

    def make(*lines: str) -> str:
        (folder / "experiment" / "mine.yaml").write_text("\n".join(("# @package _global_", *lines, "")))
        return "experiment=mine"

    return make
