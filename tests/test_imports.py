"""Imports between the subpackages follow one table; Hydra, Lightning and torch stay where they are needed."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import resnetlab

PACKAGE = Path(resnetlab.__file__).parent

TABLE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
# {subpackage: what it may import from, besides itself}; __init__ and __main__ may import anything
MAY_IMPORT = {
    subpackage: {*allowed.replace("nothing", "").split(", ")} - {""}
    for subpackage, allowed in re.findall(r"^\| `(\w+)` \| [^|]* \| ([\w, ]+) \|$", TABLE, re.MULTILINE)
}
HYDRA = {"config/compose", "config/overrides", "config/messages"}  # and all of sweeps
LIGHTNING = {"data/datamodule", "config/validate"}  # the latter for callbacks, if there are; and all of training
NO_TORCH = ("runs", "report", "published")


def imports() -> list[tuple[str, str]]:
    """(module such as "data/splits", what it imports such as "resnetlab.errors") of every import statement."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        module = str(path.relative_to(PACKAGE).with_suffix(""))
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
                if node.module == "resnetlab":
                    names = [f"resnetlab.{alias.name}" for alias in node.names]
            found += [(module, name) for name in names]
    return found


def subpackage_of(module: str) -> str:
    return module.split("/")[0]


def test_every_subpackage_has_a_row_and_the_top_of_the_package_has_at_most_13_names() -> None:
    names = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    names -= {"__pycache__", "__init__", "__main__", "conf"}
    assert names == set(MAY_IMPORT)
    assert len(names) <= 13


def test_subpackages_import_only_what_the_documentations_table_says() -> None:
    wrong = []
    for module, name in imports():
        subpackage, (top, *rest) = subpackage_of(module), name.split(".")
        if top == "resnetlab" and subpackage not in ("cli", "__init__", "__main__"):
            target = rest[0] if rest else "resnetlab itself"
            if target not in {subpackage, *MAY_IMPORT[subpackage]}:
                wrong.append(f"{module} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_only_config_and_sweeps_know_hydra() -> None:
    known = {module for module, name in imports() if name.split(".")[0] in ("hydra", "omegaconf")}
    assert {module for module in known if subpackage_of(module) != "sweeps"} == HYDRA


def test_lightning_is_imported_where_the_documentation_says() -> None:
    known = {module for module, name in imports() if name.split(".")[0] == "lightning"}
    assert {module for module in known if subpackage_of(module) != "training"} == LIGHTNING


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    """Imports in functions are counted too."""
    edges: dict[str, set[str]] = {}
    for module, name in imports():
        target = name.removeprefix("resnetlab.").replace(".", "/")
        if name.startswith("resnetlab.") and target != module and (PACKAGE / f"{target}.py").exists():
            edges.setdefault(module, set()).add(target)
    while leaves := {module for module in edges if not edges[module] & edges.keys()}:
        edges = {module: targets for module, targets in edges.items() if module not in leaves}
    assert not edges, f"a circle among {sorted(edges)}"


@pytest.mark.parametrize("subpackage", NO_TORCH)
def test_subpackages_that_read_files_do_without_torch_and_hydra(subpackage: str) -> None:
    """In a process of its own: what all their modules import, directly or not."""
    modules = sorted(
        "resnetlab." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in (PACKAGE / subpackage).rglob("*.py")
        if path.name != "__init__.py"
    )
    code = f"import sys, importlib; [importlib.import_module(name) for name in {modules}]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "hydra", "lightning", "omegaconf"} & set(done.stdout.split())
