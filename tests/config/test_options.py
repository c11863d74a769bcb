"""The comments of the option files, and what `resnetlab options` and `train.py --help` print from them."""

import re
import runpy
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from resnetlab import Config, compose
from resnetlab.cli import main
from resnetlab.config.compose import to_plain
from resnetlab.config.help_and_completion import help_text
from resnetlab.config.option_files import TOP_LEVEL, OptionFile, conf_dir, default_options, options
from resnetlab.config.schema import GROUPS

SCRIPT = Path(__file__).parents[2] / "scripts" / "write_option_files.py"


def test_the_files_are_what_the_script_would_write() -> None:
    for path, text in runpy.run_path(str(SCRIPT))["texts"]().items():
        assert path.read_text() == text, f"{path}: run python scripts/write_option_files.py"


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GROUPS for name in GROUPS[group]])
def test_every_key_of_every_option_has_a_meaning(group: str, name: str) -> None:
    file = OptionFile(conf_dir() / group / f"{name}.yaml")
    wanted = {f"{group}.{field.name}" for field in fields(GROUPS[group][name]) if field.name != "name"}
    assert wanted == {key.name for key in file.keys if key.name.startswith(f"{group}.")}
    assert all(len(key.meaning) > 10 for key in file.keys)
    assert 5 < len(file.summary) < 160


def test_every_top_level_key_has_a_meaning() -> None:
    assert [key.name for key in TOP_LEVEL.keys] == [f.name for f in fields(Config) if f.name not in GROUPS]
    assert list(default_options().items()) == [(g, to_plain(compose())[g]["name"]) for g in default_options()]
    assert set(default_options()) == set(GROUPS)


@pytest.mark.parametrize(
    "choices",
    [
        {"data": "digits", "optimizer": "muon", "schedule": "piecewise_constant", "averaging": "ema"},
        {"model": "resnet56v1_concat", "schedule": "one_cycle", "regularization": "l2_weight_decay"},
        {"model": "resnet18", "data": "cifar100", "trainer": "cpu", "schedule": "reduce_on_plateau"},
    ],
)
def test_the_defaults_are_those_of_a_composed_configuration(choices: dict[str, str]) -> None:
    """Independent of the script: Hydra composes, OmegaConf reads the defaults as if they were typed."""
    config = OmegaConf.create(to_plain(compose(*(f"{group}={name}" for group, name in choices.items()))))
    for group, name in choices.items():
        for key in OptionFile(conf_dir() / group / f"{name}.yaml").keys:
            written = OmegaConf.from_dotlist([f"{key.name}={key.default}"])
            assert OmegaConf.select(written, key.name) == OmegaConf.select(config, key.name), key


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], ["schedule=cosine ", "optimizer=adamw ", "(default)", "batch_size=64", "trainer=cpu"]),
        (["schedule"], ["Keys of all:", "schedule.warmup=0.0", "Keys of schedule=cosine:", "schedule.shape=half"]),
        (["schedule=cosine"], ["schedule.shape=half", "a quarter period, steep at the end", "1608.03983"]),
        (["schedule="], ["Keys of all:", "Keys of schedule=cosine:"]),
        (["schedule=cosine", "optimizer=sgd"], ["schedule.shape=half", "optimizer.nesterov=false"]),
        (["wd", "schedule=cosine"], ["wd=null", "schedule.shape=half"]),
        (["schedule", "optimizer"], ["Keys of schedule=cosine:", "Keys of optimizer=sgd:"]),
        (["lr"], ["lr=0.0008", "averaging.lr=null", "of averaging=swa"]),
        (["optimizer.nesterov"], ["optimizer.nesterov=true", "of optimizer=muon", "of optimizer=sgd"]),
        (["experiment"], ["experiment=demo ", "experiment=post4-table1-09 "]),
        (["experiment=demo"], ["override /data: digits"]),
    ],
)
def test_what_the_command_prints(words: list[str], wanted: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["options", *words]) == 0
    printed = capsys.readouterr().out
    for text in wanted:
        assert text in printed


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["schedule=cosin"], "schedule (=cosin) is not there; did you mean cosine?"),
        (["schedule=zzz"], "resnetlab options schedule lists them"),
        (["warmupp"], "warmupp is no group and no key; did you mean warmup"),
        (["zzz"], "resnetlab options lists the groups"),
        (["=x"], "is no group and no key"),
    ],
)
def test_an_unknown_word_is_an_error_in_one_line(
    words: list[str], wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["options", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert wanted in printed.err
    assert printed.err.count("\n") == 1


def test_the_commands_own_help_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert re.search(r"options +the settings of train.py", capsys.readouterr().out)


def test_the_help_names_every_option_and_counts_every_preset() -> None:
    text, presets = help_text(), [preset.name for preset in options("experiment")]
    for group, names in GROUPS.items():
        assert re.search(rf"^    {group}= ", text, flags=re.MULTILINE)
        assert all(name in text for name in names)
    assert f"{len(presets)} presets" in text
    assert len(text.splitlines()) < 70


def test_neither_needs_torch_or_hydra() -> None:
    code = (
        "import sys; from resnetlab.cli import main, train_main as train;"
        "main(['options']); train(['wd=1', '--help']);"
        "print({'torch', 'hydra', 'omegaconf', 'numpy', 'yaml'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "python train.py" in done.stdout
    assert done.stdout.splitlines()[-1] == "set()"
