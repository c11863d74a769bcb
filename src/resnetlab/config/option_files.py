"""The folder conf/, read without torch and Hydra: its groups, options and presets, and the keys in their comments."""

import re
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

# line after which scripts/write_option_files.py writes the keys of an option, with their defaults and meanings
MARKER = "# Keys, written by scripts/write_option_files.py:"
KEY = re.compile(r"#   (?P<name>[\w.]+)=(?P<default>\S*) +(?P<meaning>.*)")


def conf_dir() -> Path:
    """The folder of the configuration files: inside an installed wheel, or beside src/ in a clone."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "conf"


class Key(NamedTuple):
    """A key that a user can set: its full name, its default as one writes it on the command line, and its meaning."""

    name: str
    default: str
    meaning: str


class OptionFile:
    """One file of conf/: an option of a group, a preset (group "experiment"), or config.yaml, the top-level keys."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.stem

    @cached_property
    def lines(self) -> list[str]:
        return self.path.read_text().splitlines()

    @property
    def description(self) -> list[str]:
        """What the option is: the text of the comments beside the keys."""
        return [
            line.removeprefix("#").removeprefix(" ")
            for line in self.lines
            if line.startswith("#") and not line.startswith("# @package") and line != MARKER and not KEY.match(line)
        ]

    @property
    def summary(self) -> str:
        """The first sentence of the description."""
        return re.split(r"(?<=[^.][.:;])\s", " ".join(self.description), maxsplit=1)[0]

    @property
    def keys(self) -> list[Key]:
        return [Key(**match.groupdict()) for line in self.lines if (match := KEY.match(line))]


def group_names() -> list[str]:
    """The groups of options, in the order of conf/config.yaml."""
    defaults = re.findall(r"^  - (\w+): ", (conf_dir() / "config.yaml").read_text(), flags=re.MULTILINE)
    return [name for name in defaults if name != "experiment"]


def default_option(group: str) -> str:
    """The option that conf/config.yaml chooses."""
    found = re.search(rf"^  - {group}: (\w+)", (conf_dir() / "config.yaml").read_text(), flags=re.MULTILINE)
    return found[1] if found else ""


def options(group: str) -> list[OptionFile]:
    """The options of a group, or the presets if it is "experiment", by name."""
    return [OptionFile(path) for path in sorted((conf_dir() / group).glob("*.yaml"))]


def top_level() -> OptionFile:
    """conf/config.yaml."""
    return OptionFile(conf_dir() / "config.yaml")
