"""Writes the keys of each option, with default and meaning, as comments into conf/.

    python scripts/write_option_files.py

The meanings are the comments beside the fields of the dataclasses (or above them, where they are long), so that they
are written once. A test compares the files with what this script would write.
"""

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import yaml

from resnetlab.config.option_files import MARKER, conf_dir
from resnetlab.config.schema import GROUPS, Config

WIDTH = 34  # of the column of key=default

# top-level keys whose default is the option's
TOP_LEVEL = {"optimizer": ("momentum",), "regularization": ("wd", "l2"), "averaging": ("ema_momentum",)}


def main() -> None:
    for path, text in texts().items():
        path.write_text(text)


def texts() -> dict[Path, str]:
    """File -> its whole new text, for every option of every group and conf/config.yaml."""
    files = {conf_dir() / group / f"{name}.yaml": (group, name) for group in GROUPS for name in GROUPS[group]}
    found = {path: _with_keys(path, list(option_comments(path, *choice))) for path, choice in files.items()}
    top = conf_dir() / "config.yaml"
    return found | {top: _with_keys(top, [MARKER, *top_level_comments()])}


def _with_keys(path: Path, comments: list[str]) -> str:
    """The file's own lines, and `comments` in place of its last block of comments."""
    lines = path.read_text().splitlines()
    while lines and lines[-1].startswith("#"):
        lines.pop()
    return "\n".join([*lines, *comments, ""])


def option_comments(path: Path, group: str, name: str) -> Iterator[str]:
    """A line for each key of an option; above them the dataclass's docstring, if the file begins with no comment."""
    text = path.read_text()
    option, own = GROUPS[group][name], yaml.safe_load(text)
    changed = own.get(group, {}) if text.startswith("# @package _global_") else own
    if not text.startswith("#"):
        yield from (f"# {line}".rstrip() for line in (inspect.getdoc(type(option)) or "").splitlines())
    if len(fields(option)) > 1:
        yield MARKER
    explained = meanings(type(option))
    for field in fields(option):
        if field.name != "name":
            value = changed.get(field.name, getattr(option, field.name))
            yield key_line(f"{group}.{field.name}", value, explained[field.name])
    for key in TOP_LEVEL.get(group, ()):
        if (value := getattr(option, f"default_{key.removeprefix('ema_')}")) is not None:
            yield key_line(key, value, f"top-level key, with {group}={name}")
    for other in set(own) & (set(GROUPS) - {group}):
        for key, value in own[other].items():
            yield key_line(f"{other}.{key}", value, f"with {group}={name}")


def top_level_comments() -> Iterator[str]:
    """A line for each top-level key that is no group."""
    explained = meanings(Config)
    for field in fields(Config):
        if field.name not in GROUPS:
            default = field.default if field.default_factory is MISSING else field.default_factory()
            yield key_line(field.name, default, explained[field.name])


def meanings(kind: type) -> dict[str, str]:
    """{field: the comment beside or above it}, of a dataclass and its bases; a KeyError later if a field has none."""
    found: dict[str, str] = {}
    for base in reversed([base for base in kind.__mro__ if base is not object]):
        above: list[str] = []
        for line in inspect.getsource(base).splitlines():
            if comment := re.fullmatch(r"    # (.*)", line):
                above.append(comment[1])
            elif field := re.match(r"    (\w+): .*?(?:  # (.*))?$", line):
                if text := field[2] or " ".join(above):
                    found[field[1]] = text
                above = []
            else:
                above = []
    return found


def key_line(key: str, default: Any, meaning: str) -> str:
    """For example "#   schedule.final=0.0      at the end, a fraction of lr"."""
    return f"#   {f'{key}={spelt(default)}':{WIDTH}} {meaning}"


def spelt(value: Any) -> str:
    """A default as one writes it on the command line, without spaces."""
    if isinstance(value, list):
        return f"[{','.join(map(spelt, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{spelt(part)}' for key, part in value.items())}}}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    main()
