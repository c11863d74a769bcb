"""The README's commands and names, the constraints, the wheel."""

import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from resnetlab.config.overrides import SEARCH, configurations_of, normalize_arguments
from resnetlab.config.schema import GROUPS, conf_dir
from resnetlab.sweeps.search.plan import make_plan

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands(program: str) -> list[list[str]]:
    """The arguments of every line in the README's code blocks that calls the program; a line ends with no backslash."""
    blocks = re.findall(r"```bash\n(.*?)```", README.replace("\\\n", " "), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith(program)]
    return [shlex.split(line, comments=True)[len(program.split()) :] for line in lines]


@pytest.mark.parametrize("arguments", commands("python train.py"), ids=" ".join)
def test_every_training_command_of_the_readme_composes(arguments: list[str]) -> None:
    expanded = [a for a in normalize_arguments(arguments) if a not in ("--cfg", "job")]
    if SEARCH in expanded:
        assert make_plan([a for a in expanded if a != "-m"]).space.distributions
        return
    assert configurations_of([a for a in expanded if a != "-m"], multirun="-m" in expanded)


def test_the_readme_has_commands_to_test() -> None:
    assert len(commands("python train.py")) >= 5


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    expected = "help demo test test-slow check train report tensorboard bench clean"
    assert targets == set(expected.split())
    assert {arguments[0] for arguments in commands("make")} <= targets


def test_make_report_writes_the_page_too() -> None:
    def commands_of(*arguments: str) -> str:
        plain = {k: v for k, v in os.environ.items() if k not in ("DIR", "OUT", "MAKEFLAGS")}
        done = subprocess.run(
            ["make", "-n", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True, env=plain
        )
        return done.stdout

    assert ".venv/bin/resnetlab report outputs --out report\n" in commands_of("report")
    assert ".venv/bin/resnetlab report a --out b\n" in commands_of("report", "DIR=a", "OUT=b")


@pytest.mark.parametrize("group", GROUPS)
def test_the_readme_names_every_option(group: str) -> None:
    assert set(GROUPS[group]) == {path.stem for path in (conf_dir() / group).glob("*.yaml")}
    for name in GROUPS[group]:
        assert f"`{name}`" in README


def test_constraints_are_names_and_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin) for pin in pins)
    assert {"torch", "lightning", "hydra-core", "hydra-joblib-launcher", "ray", "hydra-submitit-launcher"} <= {
        pin.split("==")[0] for pin in pins
    }


@pytest.mark.slow
def test_a_wheel_contains_the_configuration(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)],
        check=True,
        timeout=300,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    expected = {f"resnetlab/conf/{path.relative_to(ROOT / 'conf')}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert expected <= set(names)
    assert {"resnetlab/data/epoch_plan.py", "resnetlab/published/published.csv"} <= set(names)
    plugins = {f"hydra_plugins/resnetlab_{name}.py" for name in ("optuna", "processes", "ray")}
    assert plugins <= set(names)  # where Hydra looks
    assert {name.split("/")[0] for name in names} <= {"resnetlab", "hydra_plugins", "resnetlab-0.1.0.dist-info"}
    assert not [name for name in names if "bench" in name or "scripts" in name]
