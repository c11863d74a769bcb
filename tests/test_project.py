"""The Makefile, the constraints, the wheel."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_make_report_writes_the_page_too() -> None:
    def commands_of(*arguments: str) -> str:
        plain = {k: v for k, v in os.environ.items() if k not in ("DIR", "OUT", "MAKEFLAGS")}
        done = subprocess.run(
            ["make", "-n", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True, env=plain
        )
        return done.stdout

    assert ".venv/bin/resnetlab report outputs --out report\n" in commands_of("report")
    assert ".venv/bin/resnetlab report a --out b\n" in commands_of("report", "DIR=a", "OUT=b")


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
    plugins = {f"hydra_plugins/resnetlab_{name}.py" for name in ("launchers", "sweepers")}
    assert plugins <= set(names)  # where Hydra looks
    assert {name.split("/")[0] for name in names} <= {"resnetlab", "hydra_plugins", "resnetlab-0.1.0.dist-info"}
    assert not [name for name in names if "bench" in name or "scripts" in name]
