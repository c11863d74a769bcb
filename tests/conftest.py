"""Tests run in an empty folder, on one thread, on the embedded digits and the smallest network of the family."""

import copy
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra._internal import config_loader_impl as hydra_loader
from hydra._internal.defaults_list import DefaultsList, Overrides

from resnetlab import Config, compose
from resnetlab.cli import train_main as main
from resnetlab.config.option_files import conf_dir
from resnetlab.runs.files import read_rows
from resnetlab.runs.layout import RunFolder

TINY = (
    *("model=resnet20v2", "model.depth=11", "data=digits", "data.limit=60", "batch_size=32", "trainer.progress=off"),
    "logger=none",  # TensorBoard's pictures of the validation images were half of the seconds of such a run
)
TIMES = ("time/", "power/")  # begin the columns that may differ between equal runs


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Outputs go below the current folder: each test gets its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESNETLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("resnetlab.data.sources.gettempdir", lambda: str(tmp_path.parent))  # for the lock
    return tmp_path


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def merged_once() -> Iterator[tuple[Callable[..., Any], Callable[..., Any]]]:
    """Let Hydra list and merge the files of the same options once: most of the 0.1 s that compose takes.

    The other words go into a copy each time, and files of another folder than the lab's are read each time.
    """
    make_list = hydra_loader.create_defaults_list
    merge = hydra_loader.ConfigLoaderImpl._compose_config_from_defaults_list
    make_cache = hydra_loader.CachingConfigRepository.__init__
    lists: dict[str, DefaultsList] = {}
    configs: dict[int, Any] = {}

    def listed(*, repo: Any, overrides_list: Any, **keys: Any) -> DefaultsList:
        chosen = Overrides(repo=repo, overrides_list=overrides_list)
        parts = [chosen.override_choices, chosen.deletions, chosen.append_group_defaults, *keys.items()]
        key = repr([(source.scheme(), source.path) for source in repo.get_sources()] + parts)
        if [source.path for source in repo.get_sources() if source.scheme() == "file"] != [str(conf_dir())]:
            return make_list(repo=repo, overrides_list=overrides_list, **keys)
        if key not in lists:
            lists[key] = make_list(repo=repo, overrides_list=overrides_list, **keys)
        return replace(lists[key], config_overrides=chosen.config_overrides)

    def merged(self: Any, defaults: Any, repo: Any) -> Any:
        if not any(known.defaults is defaults for known in lists.values()):
            return merge(self, defaults=defaults, repo=repo)
        if id(defaults) not in configs:
            configs[id(defaults)] = merge(self, defaults=defaults, repo=repo)
        return copy.deepcopy(configs[id(defaults)])

    def begin(self: Any, delegate: Any) -> None:
        self.delegate, self.cache = copy.copy(delegate), {}  # Hydra copies every option in it, another third

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hydra_loader, "create_defaults_list", listed)
        patch.setattr(hydra_loader.ConfigLoaderImpl, "_compose_config_from_defaults_list", merged)
        patch.setattr(hydra_loader.CachingConfigRepository, "__init__", begin)
        yield merge, make_cache


def tiny(*overrides: str) -> Config:
    """A configuration that trains in a second or two: 60 images in two steps an epoch, three epochs."""
    return compose(*TINY, "epochs=3", *overrides)


def deterministic(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """The columns that may not differ between equal runs."""
    return [{key: value for key, value in row.items() if not key.startswith(TIMES)} for row in rows]


def rows_of(run: Config | RunFolder) -> list[dict[str, float]]:
    """The deterministic columns of a run's rows."""
    return deterministic(read_rows((run.folder if isinstance(run, Config) else run).metrics))


def equal(one: Any, other: Any, but: tuple[str, ...] = ()) -> bool:
    """Whether plain data with tensors in it are the same to the bit, but for keys that begin with one of `but`."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in {*one, *other} if not str(key).startswith(but)]
        return all(key in one and key in other and equal(one[key], other[key], but) for key in keys)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(equal(*pair, but) for pair in zip(one, other, strict=True))
    return bool(one == other)


@pytest.fixture(scope="session")
def finished_outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of run(tiny()), with TensorBoard's file, trained once for all tests; they are not to be changed."""
    from resnetlab import run  # brings Lightning

    torch.set_num_threads(1)  # before the fixture below
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder := tmp_path_factory.mktemp("finished"))
        run(tiny("logger=tensorboard"))
    return folder / "outputs"


@pytest.fixture
def finished(finished_outputs: Path, empty_folder: Path) -> Config:
    """The configuration of a finished run, whose files are copied into the test's folder."""
    shutil.copytree(finished_outputs, empty_folder / "outputs")
    return tiny("logger=tensorboard")


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
