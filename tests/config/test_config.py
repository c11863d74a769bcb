"""Composition, the rules, and the identity of a configuration."""

import itertools
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_type_hints

import pytest
import torch
import yaml
from hydra._internal import config_loader_impl as hydra_loader
from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf
from hydra._internal.defaults_list import create_defaults_list
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.resnetlab_launchers import OneProcessConf, ProcessesConf, RayConf
from hydra_plugins.resnetlab_sweepers import OptunaConf, SeedsConf
from resnetlab import Config, ConfigError, compose
from resnetlab.config.compose import compose_node, from_plain, hydra_context, to_plain, to_yaml
from resnetlab.config.messages import error_message
from resnetlab.config.option_files import conf_dir
from resnetlab.config.schema import GROUPS
from resnetlab.errors import LIMITS, check_limits

CALLS = itertools.count(1)
SWEEPERS = {"optuna": OptunaConf(), "seeds": SeedsConf(), "basic": BasicSweeperConf()}


def counted(t: float) -> float:
    return 1 / next(CALLS)


def test_the_defaults_are_the_main_experiment() -> None:
    config = compose()
    assert (config.model.name, config.data.name, config.data.split) == ("resnet56v2", "cifar10", "official")
    assert (config.optimizer.name, config.schedule.name, config.regularization.name) == (
        "adamw",
        "piecewise_linear",
        "weight_decay",
    )
    assert (config.batch_size, config.lr, config.epochs, config.shift) == (64, 8e-4, 60, 0.07)
    assert (config.wd, config.l2, config.momentum) == (0.2, None, 0.9)
    assert (config.model.bn_momentum, config.model.bn_eps, config.optimizer.eps) == (0.01, 1e-3, 1e-7)  # type: ignore[attr-defined]


def test_digits_bring_what_they_need_and_the_command_line_wins() -> None:
    config = compose("data=digits")
    assert (config.model.bn_momentum, config.data.flip) == (0.1, False)
    assert compose("data=digits", "model.bn_momentum=0.01", "data.flip=true").model.bn_momentum == 0.01


def test_a_preset_wins_over_the_defaults_and_the_command_line_over_the_preset() -> None:
    assert compose("experiment=demo").lr == 4e-3
    assert compose("experiment=demo", "lr=0.1").lr == 0.1


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("+typo=1", ["typo", "valid", "batch_size"]),
        ("optimizer.epsilon=1", ["epsilon", "eps"]),
        ("experiment=post4-table1-9", ["did you mean post4-table1-09,"]),
        ("norm=group", ["unknown key norm; did you mean model.norm?"]),
        ("warmup=2", ["did you mean schedule.warmup or averaging.warmup?"]),
        ("name=x", ["name", "valid: "]),  # of every group, and of none in particular
        ("optimizer.norm=group", ["optimizer.norm", "valid: "]),
        ("lr=-1", ["lr (=-1.0)", "above 0"]),
        ("lr=nan", ["lr (=nan)"]),
        ("seed=-1", ["seed (=-1)"]),
        ("epochs=0", ["epochs (=0)"]),
        ("batch_size=0", ["batch_size (=0)"]),
        ("shift=0.7", ["shift (=0.7)"]),
        ("study=../up", ["study", "folder"]),
        ("thresholds=[92]", ["thresholds (=92.0)"]),
        ("thresholds=[[0.9]]", ["thresholds"]),
        ("thresholds=[0.9,0.9]", ["thresholds", "differ"]),
        ("epochs=3.5", ["epochs", "3.5", "whole number"]),
        ("epochs=99999999999999999999999", ["epochs"]),
        (f"study={'x' * 300}", ["study"]),
        ("schedule=lambda schedule.function=sys.exit", ["sys.exit"]),
        ("objective=final_val_loss", ["objective (=final_val_loss)", "final_val_acc"]),
        ("objective=final_test_acc", ["objective", "data.split"]),
        ("threads=0", ["threads (=0)"]),
        ("momentum=1", ["momentum (=1.0)"]),
        ("model.depth=57", ["model.depth (=57)", "9n + 2"]),
        ("data.split=random", ["data.split (=random)", "stratified"]),
        ("schedule.milestones=[[20,1],[10,0.1]]", ["schedule.milestones"]),
        ("schedule=reduce_on_plateau schedule.monitor=val/los", ["schedule.monitor (=val/los)", "val/loss"]),
        ("schedule=reduce_on_plateau schedule.monitor=''", ["schedule.monitor (=) must be one of val/loss"]),
        ("schedule=reduce_on_plateau schedule.monitor=val/loss_recal", ["schedule.monitor"]),
        ("data.limit=65 model=resnet56v1_concat", ["batch_size (=64)", "a last batch of 1 of 65 images"]),
        (
            "data.limit=65 model=resnet18 data.resolution=8",
            ["a last batch of 1 of 65 images, on which resnet18", "8x8"],
        ),
        ("data.limit=65 model=resnet9 data.resolution=8", ["batch_size (=64)", "cannot train at 8x8 pixels"]),
        ("data.limit=65 model=resnet9 model.stem=imagenet", ["cannot train at 32x32 pixels"]),
        ("data=digits model=resnet18 model.stem=imagenet batch_size=1", ["batch_size (=1)", "at 16x16 pixels"]),
        ("data.limit=66 model=resnet18 data.resolution=8 trainer.devices=2", ["1 for one of the 2 devices, on which"]),
        ("model=resnet18 model.channels_per_group=4", ["model.channels_per_group (=4) must be left out with"]),
        ("schedule.milestones=[[0,0],[5,1]]", ["must not be 0 throughout epoch 1", "schedule.interval=step"]),
        (
            "schedule=lambda schedule.function=math.sin epochs=3",
            ["must not be 0 throughout epoch 1", "schedule.interval=step"],
        ),
        ("averaging=swa averaging.anneal_epochs=3", ["averaging.anneal_epochs (=3) must be 0, or a number of epochs"]),
        (
            "schedule=lambda schedule.function=random.uniform 'schedule.parameters={b: 1}'",
            ["(=random.uniform)", "same"],
        ),
        (
            "schedule=lambda schedule.function=tests.config.test_config.counted",
            ["counted) must return the same at every"],
        ),
        ("averaging=swa averaging.lr=1 averaging.anneal=exp", ["averaging.anneal (=exp) must be one of cos, linear"]),
        ("data.split=holdout data.val_size=60000", ["data.val_size (=60000)", "50,000"]),
        ("data=digits data.limit=60 schedule=one_cycle epochs=1", ["1 step"]),
        ("schedule.name=cosine", ["schedule.name (=cosine)"]),
        ("trainer.precision=8-bit", ["trainer.precision (=8-bit)", "16-mixed"]),
        ("trainer.progress=loud", ["trainer.progress (=loud)"]),
        ("trainer.patience=0", ["trainer.patience (=0)"]),
        ("optimizer.eps=-1", ["optimizer.eps"]),
        ("schedule=one_cycle momentum=0.9", ["cycle"]),
        ("model.norm=group recalibrate_bn=true", ["recalibrate_bn (=true) needs model.norm=batch"]),
        ("optimizer=sgd optimizer.nesterov=true momentum=0", ["nesterov"]),
    ],
)
def test_bad_input_is_refused_in_one_line_with_value_and_cure(override: str, wanted: list[str]) -> None:
    with pytest.raises((ConfigError, HydraException, OmegaConfBaseException)) as caught:
        compose(*shlex.split(override))
    line = error_message(caught.value)
    assert "\n" not in line
    assert "+wdd" not in line  # Hydra's advice, which would be refused as well
    assert line.count("post4-table") <= 5  # itself and at most four of more than a hundred
    for word in wanted:
        assert word in line


def test_a_misspelt_key_in_an_experiment_or_group_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    shutil.copytree(conf_dir(), tmp_path / "conf")
    (tmp_path / "conf/experiment/wrong.yaml").write_text("# @package _global_\nschedule: {mileston: 3}\n")
    (tmp_path / "conf/optimizer/wrong.yaml").write_text("defaults: [/schema/optimizer/adamw@_here_]\nepsilon: 1\n")
    monkeypatch.setattr("resnetlab.config.compose.conf_dir", lambda: tmp_path / "conf")
    for override, key in (("experiment=wrong", "mileston"), ("optimizer=wrong", "epsilon")):
        with pytest.raises((HydraException, OmegaConfBaseException)) as caught:
            compose(override)
        assert key in error_message(caught.value)


def test_plain_data_is_a_round_trip() -> None:
    config = compose("experiment=demo", "optimizer=sgd", "schedule=cosine", "regularization=coupled", "wd=1e-3")
    assert from_plain(to_plain(config)) == config
    assert "name: cosine" in to_yaml(config)


def test_the_identity_of_the_defaults_is_their_options() -> None:
    assert compose().identity == {
        "model": "resnet56v2",
        "data": "cifar10",
        "optimizer": "adamw",
        "schedule": "piecewise_linear",
        "regularization": "weight_decay",
    }


def test_the_name_is_readable_and_pinned() -> None:
    """The literal hash: old run folders must be found again by later versions."""
    assert compose("trainer=cpu").name == "resnet56v2-cifar10-adamw-piecewise_linear-weight_decay-1053f847"
    assert "-wd0.1-" in compose("wd=0.1").name
    assert "-depth20-" in compose("model.depth=20").name


@pytest.mark.parametrize(
    ("override", "changes"),
    [
        *((o, True) for o in ("wd=0.1", "epochs=61", "optimizer=sgd", "data.limit=100", "threads=1", "lr=1e-3")),
        ("schedule.milestones=[[20,1],[40,0.1],[50,0.0125],[60,0.0025]]", False),
        ("wd=0.2 momentum=0.9 model.depth=56 model=resnet56v2", False),  # the defaults spelt out
        ("data.root=/elsewhere trainer.progress=off force=true thresholds=[0.5] study=x seed=3", False),
    ],
)
def test_what_changes_the_result_and_nothing_else_changes_the_name(override: str, changes: bool) -> None:
    assert (compose(*override.split()).name != compose().name) is changes


def test_precision_is_part_of_what_a_run_is_whether_chosen_or_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = compose().name
    assert compose("trainer=cpu", "trainer.precision=32-true").name == plain
    assert compose("trainer.precision=bf16-mixed").name != plain
    config = compose()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert config.identity["precision"] == "16-mixed"


def test_study_and_seed_are_in_the_path() -> None:
    path = compose("study=s", "seed=7").folder.path
    assert path.parts[:2] == ("outputs", "s")
    assert path.name == "seed=7"


def test_identity_name_and_folder_are_computed_once_and_anew_for_a_changed_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, digests = compose("trainer=cpu"), []
    monkeypatch.setattr("resnetlab.config.identity.digest", lambda *asked: digests.append(asked) or "0" * 12)
    assert config.folder is config.folder
    assert config.folder.path.parent.name == f"{config.name}0000"
    assert len(digests) == 1
    changed = replace(config, wd=0.1)
    assert changed.identity == config.identity | {"wd": 0.1}
    assert "-wd0.1-" in changed.name
    assert changed.folder.path != config.folder.path
    assert len(digests) == 2
    assert config == replace(config)  # what is computed is no part of the values


def test_every_option_of_a_group_is_an_instance_with_its_defaults() -> None:
    for group, base in get_type_hints(Config).items():
        for name, option in GROUPS.get(group, {}).items():
            assert isinstance(option, base)
            assert option.name == name


def launcher_values() -> dict[str, Any]:
    """{name: its defaults} of resnetlab's launchers and those of the packages that it knows."""
    joblib = pytest.importorskip("hydra_plugins.hydra_joblib_launcher.config").JobLibLauncherConf()
    submitit = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.config")
    own = {"processes": ProcessesConf(), "one_process": OneProcessConf(), "ray": RayConf(), "joblib": joblib}
    return own | {"submitit_local": submitit.LocalQueueConf(), "submitit_slurm": submitit.SlurmQueueConf()}


@pytest.mark.parametrize(("group", "key"), [(group, key) for group in LIMITS for key in LIMITS[group]])
def test_a_limit_is_of_a_key_that_there_is_and_allows_its_defaults(group: str, key: str) -> None:
    limit, (choice, _, name) = LIMITS[group][key], key.rpartition(".")
    launchers = launcher_values() if group == "hydra.launcher" else {}
    options = {"config": {"": compose()}, "hydra.sweeper": SWEEPERS, "hydra.launcher": launchers, **GROUPS}[group]
    assert any(hasattr(option, name) for option in ([options[choice]] if choice else options.values()))
    for label, option in options.items():
        check_limits(group, {"name": label, **vars(option)})
    numbers = {"must", "least", "most", "above", "below"}
    assert limit.keys() in ({"one_of"}, {"pattern", "must"}) or {"must"} < limit.keys() <= numbers
    assert not {"least", "above"} <= limit.keys()
    assert not {"most", "below"} <= limit.keys()


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("schedule.warmup_from=0.2", "schedule.warmup above 0"),
        ("schedule.warmup_prefix=true", "schedule.warmup above 0"),
        ("averaging.anneal=linear averaging=swa averaging.lr=0.1", "averaging.anneal_epochs"),
        ("data.padding=2", "data.translate=pad_crop"),
        ("data.translate=pad_crop data.augment=false", "data.augment=true"),
        ("shift=0.1 data.translate=pad_crop", "data.translate=shift"),
        ("shift=0.1 data.translate=none", "data.translate=shift"),
        ("shift=0.1 data.augment=false", "data.augment=true"),
        ("model.bn_momentum=0.5 model.norm=group", "model.norm=batch"),
        ("model.bn_momentum=0.5 model=resnet18 model.norm=group_ws", "model.norm=batch"),
        ("schedule.length=5.0 schedule=reduce_on_plateau", "a schedule that follows the time"),
        ("data.translate=none data.augment=false", "data.augment=true"),
        ("schedule.lowest_momentum=0.8 schedule=one_cycle schedule.cycle_momentum=false", "schedule.cycle_momentum"),
        ("data.split_seed=3 data.split=tail", "data.split=stratified or holdout"),
    ],
)
def test_a_value_without_effect_is_refused_but_for_what_an_older_run_recorded(override: str, where: str) -> None:
    first, *others = override.split()
    with pytest.raises(ConfigError) as caught:
        compose(*override.split())
    key, _, value = first.partition("=")
    assert str(caught.value).startswith(f"{key} (={value}) must be ")
    assert str(caught.value).endswith(f"must be at its default: it is used with {where} only")
    plain = to_plain(compose(*others))
    part, _, name = key.rpartition(".")
    (plain[part] if part else plain)[name] = yaml.safe_load(value)
    assert to_plain(from_plain(plain)) == plain


@pytest.mark.parametrize(
    "overrides",
    [
        "data=digits model.norm=group",
        "schedule=cosine schedule.warmup=2 schedule.warmup_from=0.2 schedule.warmup_prefix=true",
        "data.translate=pad_crop data.padding=2 data.fill=black",
        "model=resnet18 data.limit=65 data.resolution=16",  # 2x2 pixels are left
        "model=resnet18 data.limit=65 data.resolution=8 model.norm=group",
        "model=resnet9 data.limit=66 data.resolution=8",
        "model=resnet20v2 data.limit=65 data.resolution=8",
        "schedule.milestones=[[0,0],[5,1]] schedule.interval=step",
        "model=resnet18 model.norm=group model.channels_per_group=64",
    ],
)
def test_what_can_be_trained_is_not_refused(overrides: str) -> None:
    compose(*overrides.split())


def test_the_shortcut_of_these_tests_composes_what_hydra_does(
    merged_once: tuple[Callable[..., Any], Callable[..., Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["lr=0.5", "data=digits model.depth=11 wd=0.3", "experiment=demo", "experiment=demo lr=0.5"]
    words += ["schedule=lambda schedule.function=math.exp", "logger=[csv,tensorboard]", "hydra/launcher=processes"]

    def nodes() -> list[Any]:
        with hydra_context():
            return [OmegaConf.to_container(compose_node(word.split())) for word in words]

    short = nodes(), nodes()
    monkeypatch.setattr(hydra_loader, "create_defaults_list", create_defaults_list)
    merge, make_cache = merged_once
    monkeypatch.setattr(hydra_loader.ConfigLoaderImpl, "_compose_config_from_defaults_list", merge)
    monkeypatch.setattr(hydra_loader.CachingConfigRepository, "__init__", make_cache)
    assert short[0] == short[1] == nodes()
