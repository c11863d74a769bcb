"""The folder conf/, read without torch and Hydra: its groups, options and presets, and the keys in their comments."""

import os
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from resnetlab.errors import ConfigError

CONFIG_DIR_VARIABLE = "RESNETLAB_CONFIG_DIR"  # so that the workers of a sweep have it too

# line after which scripts/write_option_files.py writes the keys of an option, with their defaults and meanings
MARKER = "# Keys, written by scripts/write_option_files.py:"
KEY = re.compile(r"^#   (?P<name>[\w.]+)=(?P<default>\S*) +(?P<meaning>.*)$", re.MULTILINE)


def conf_dir() -> Path:
    """The folder of the configuration files: inside an installed wheel, or beside src/ in a clone."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "conf"


def own_conf_dir() -> Path | None:
    """The user's folder of presets and option files, --config-dir's or ./conf; None without one.

    Raises ConfigError if it is not there, or for another file of the name of one of the lab's.
    """
    named, lab = os.environ.get(CONFIG_DIR_VARIABLE), conf_dir().resolve()
    folder = Path(named or "conf").absolute()
    if not folder.is_dir() and named:
        raise ConfigError(f"--config-dir (={named}) is not a folder; name one with files such as experiment/mine.yaml")
    if not folder.is_dir() or folder.resolve() == lab:
        return None
    for path in folder.glob("*/*.yaml"):
        if (other := lab / path.relative_to(folder)).is_file() and other.read_bytes() != path.read_bytes():
            raise ConfigError(f"{path} has the name of an option of the lab's; rename it, or name another --config-dir")
    return folder


def take_config_dir(arguments: Sequence[str]) -> list[str]:
    """The arguments without --config-dir DIR, whose folder is put into the environment. Raises ConfigError."""
    rest, words = [], iter(arguments)
    for word in words:
        flag, equals, folder = word.partition("=")
        if flag == "--config-dir":
            os.environ[CONFIG_DIR_VARIABLE] = os.path.abspath((folder if equals else next(words, "")) or os.devnull)
            own_conf_dir()
        else:
            rest.append(word)
    return rest


class Key(NamedTuple):
    """A key that a user can set: its full name, its default as one writes it on the command line, and its meaning."""

    name: str
    default: str
    meaning: str


class OptionFile:
    """One file of conf/: an option of a group, a preset (group "experiment"), or config.yaml, the top-level keys."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.stem

    @property
    def text(self) -> str:
        return self.path.read_text()

    @property
    def description(self) -> list[str]:
        """What the option is: the comments above the keys."""
        lines = self.text.partition(MARKER)[0].splitlines()
        comments = [line for line in lines if line.startswith("#") and not line.startswith("# @package")]
        return [line.removeprefix("#").removeprefix(" ") for line in comments]

    @property
    def summary(self) -> str:
        """The first sentence of the description."""
        first = "\n".join(self.description).strip().partition("\n\n")[0]
        text = " ".join(first.split())
        return re.split(r"\. (?=[A-Z]|python)", text, maxsplit=1)[0].removesuffix(".")

    @property
    def keys(self) -> list[Key]:
        return [Key(**match.groupdict()) for match in KEY.finditer(self.text.partition(MARKER)[2])]


TOP_LEVEL = OptionFile(conf_dir() / "config.yaml")


def default_options() -> dict[str, str]:
    """{group: its default option}, in the order of conf/config.yaml."""
    return dict(re.findall(r"^  - (\w+): (?!null)(\w+)", TOP_LEVEL.text, flags=re.MULTILINE))


def options(group: str) -> list[OptionFile]:
    """The options of a group, or the presets if it is "experiment", by name; the user's own among them."""
    folders = filter(None, (own_conf_dir(), conf_dir()))
    found = {path.stem: path for folder in folders for path in (folder / group).glob("*.yaml")}
    return [OptionFile(found[name]) for name in sorted(found)]


def suggestion(name: str, known: Iterable[str], otherwise: str) -> str:
    """The known names that look like a wrong one, or where to look."""
    close = get_close_matches(name, known, n=4)
    return f"did you mean {', '.join(close)}?" if close else otherwise
