"""Writes published/presets.csv, by which a run's folder is known as a preset's: python -m resnetlab.preset_digests.

Composing all presets takes half a minute, too long for every report; a test compares the file with what they are.
"""

from resnetlab.config.compose import compose
from resnetlab.config.identity import identity
from resnetlab.published import preset_of, rows
from resnetlab.published.match import FILE, digests
from resnetlab.runs.files import write_text

__all__ = ["line", "main"]


def main() -> None:
    """One line a preset, in the order of the published rows."""
    presets = dict.fromkeys(preset_of(row.id) for row in rows())
    write_text(FILE, "name,whole,core,model,epochs\n" + "".join(f"{line(preset)}\n" for preset in presets))


def line(preset: str) -> str:
    """For example "post4-table1-05,0a1b2c3d,4e5f6a7b,resnet56v2,60"."""
    config = compose(f"experiment={preset}")
    return ",".join([preset, *digests(identity(config)), config.model.name, str(config.epochs)])


if __name__ == "__main__":
    main()
