"""How figures and sides are written in a verdict."""

from resnetlab.claims.data import Part
from resnetlab.claims.figures import LOGARITHMIC
from resnetlab.claims.pools import Pool
from resnetlab.report.groups import format_value
from resnetlab.report.statistics import mean_interval

__all__ = ["name", "short", "told"]

SHORT = {
    "amplitude": "max - min of val ce, epochs 10-36",
    "swing_left": "share of the swing (its even fall taken out) left with re-estimated statistics",
    "jump_ratio": "largest jump of val ce over that of train ce, epochs 10-36",
    "rise_train": "largest rise of train ce in an epoch",
    "calm_ratio": "largest jump of val ce at a tenth of the lr over that in epochs 10-36",
    "damping": "roughness of val ce before the first drop of lr over that after it",
    "drop_gain": "gain of val acc at the first drop of lr",
    "lowest_acc": "lowest val acc of epochs 10-36",
    "noise_acc": "scatter of val acc from epoch to epoch, epochs 20-80",
    "onset": "first epoch with val ce over twice its running median",
    "avg_gain": "val acc of the average minus that of the last weights",
}


def short(figure: str) -> str:
    """For example "best val acc"; "(compared as logarithms)" behind it where it is."""
    text = SHORT.get(figure, figure.replace("_", " "))
    return f"{text} (compared as logarithms)" if figure in LOGARITHMIC else text


def told(pool: Pool, figure: str) -> str:
    """For example "0.9231 ± 0.0012 (n = 3)", "(n = 3 of 10)" where the others do not have it."""
    found = mean_interval(pool.values(figure))
    if found is None:
        return f"none (n = 0 of {len(pool.runs)})"
    sd = "" if found.sd is None else f" ± {found.sd:.2g}"
    of = f" of {len(pool.runs)}" if found.n < len(pool.runs) else ""
    return f"{found.mean:.4g}{sd} (n = {found.n}{of})"


def name(pool: Pool, part: Part, side: str = "") -> str:
    """What tells this side from the other: "wd 0.2", or the preset's name."""
    keys = list(part.a if side == "a" else part.b if side == "b" else part.where)
    if not keys:
        return pool.preset or "these runs"
    if "preset" in keys:
        return str(pool.preset)
    return ", ".join(f"{key.split('.')[-1]} {format_value(pool.setting(key))}" for key in keys)
