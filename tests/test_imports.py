"""Imports point downwards only; Hydra stays at the door; the report reads files and knows no training code."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import resnetlab

PACKAGE = Path(resnetlab.__file__).parent

# from the ground up; a room may import from the rooms below it, and from itself
ROOMS = [
    "errors files hints lifeline nvml speech swings containment",
    "models data ranks schedules trainer",
    "regularization averaging meter tally",
    "optimizers",
    "engine",
    "config",
    "folders summary report",
    "completion status published",
    "module preset_digests",
    "followers manifest callbacks",
    "build",
    "evaluation",
    "run bench_peers range_test interpolation",
    "nursery",
    "sweeps bench",
    "arguments refusals submission",
    "search",
    "multirun",
    "front_door",
    "follower worker",
    "launch campaign",
    "tools",
    "cli",
]
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms.split()}
HYDRA = {"arguments", "config", "front_door", "launch", "multirun", "refusals", "search", "submission"}


def imports() -> list[tuple[str, str, str]]:
    """(room, imported top-level package, imported room of ours or "") of every import statement."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                top, _, rest = name.partition(".")
                found.append((room, top, rest.split(".")[0] if top == "resnetlab" else ""))
    return found


def test_every_room_has_its_place() -> None:
    assert {room for room, _, _ in imports()} <= set(LEVEL)


def test_imports_point_downwards() -> None:
    for room, _, ours in imports():
        if ours and ours != room:
            assert LEVEL[ours] < LEVEL[room], f"{room} imports {ours}, which is not below it"


def test_only_the_door_knows_hydra() -> None:
    assert {room for room, top, _ in imports() if top in ("hydra", "omegaconf")} == HYDRA


def test_leaves_and_report_know_no_lightning() -> None:
    lightning = {room for room, top, _ in imports() if top == "lightning"}
    assert not lightning & {
        "models",
        "schedules",
        "optimizers",
        "regularization",
        "averaging",
        "meter",
        "report",
        "published",
        "status",
    }


def test_what_is_exported_exists() -> None:
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        module = importlib.import_module(".".join(["resnetlab", *(part for part in parts if part != "__init__")]))
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{module.__name__} exports {name}, which it does not have"


def test_report_and_published_import_no_torch() -> None:
    found = [path for room in ("report", "published") for path in (PACKAGE / room).rglob("*.py")]
    parts = [path.relative_to(PACKAGE.parent).with_suffix("").parts for path in found]
    names = [".".join(name for name in path if name != "__init__") for path in parts]
    code = f"import importlib, sys; [importlib.import_module(n) for n in {names}]; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_published_imports_only_what_reads_runs() -> None:
    allowed = {"published", "report", "errors", "files", "summary", "swings"}
    assert {ours for room, top, ours in imports() if room == "published" and top == "resnetlab"} <= allowed
    assert not {ours for room, _, ours in imports() if room == "report"} & {"published"}
