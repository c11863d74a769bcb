"""Imports point downwards only; Hydra stays at the door; the report reads files and knows no training code."""

import ast
from pathlib import Path

import resnetlab

PACKAGE = Path(resnetlab.__file__).parent

# from the ground up; a room may import from the rooms below it, and from itself
ROOMS = [
    "errors files",
    "models data schedules trainer",
    "regularization averaging meter",
    "optimizers",
    "config",
    "folders summary report",
    "module",
    "manifest callbacks",
    "build",
    "evaluation",
    "run bench",
    "front_door cli",
]
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms.split()}
HYDRA = {"config", "front_door"}


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
    assert not lightning & {"models", "schedules", "optimizers", "regularization", "averaging", "meter", "report"}


def test_what_is_exported_exists_and_is_sorted() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                names = ast.literal_eval(node.value)
                assert names == sorted(names) or names == sorted(
                    names, key=lambda n: (not n.isupper(), n[0].islower(), n)
                ), path
