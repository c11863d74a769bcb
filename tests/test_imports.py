"""Imports point downwards only; Hydra stays at the door; the report reads files and knows no training code."""

import ast
import importlib
from pathlib import Path

import resnetlab

PACKAGE = Path(resnetlab.__file__).parent

# from the ground up; a room may import from the rooms below it, and from itself
ROOMS = [
    "errors files hints lifeline nvml speech swings containment",
    "models data ranks schedules trainer published",
    "regularization averaging meter tally",
    "optimizers",
    "engine",
    "config",
    "folders summary report",
    "completion status",
    "module claims",
    "followers manifest callbacks",
    "build",
    "evaluation",
    "run range_test interpolation",
    "nursery",
    "sweeps",
    "arguments refusals submission",
    "search",
    "multirun",
    "front_door",
    "follower worker",
    "launch",
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
        "claims",
        "status",
    }


def test_what_is_exported_exists() -> None:
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        module = importlib.import_module(".".join(["resnetlab", *(part for part in parts if part != "__init__")]))
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{module.__name__} exports {name}, which it does not have"
