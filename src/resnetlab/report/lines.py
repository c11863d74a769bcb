"""What the pictures of a study share: lines through configurations, points, names, and what the captions say of n."""

import textwrap
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from resnetlab.report.configurations import Configuration
from resnetlab.report.figures import COLORS

__all__ = [
    "MOST_BARS",
    "Configurations",
    "best",
    "counted",
    "legend",
    "limited",
    "lines_along",
    "mean",
    "name_bars",
    "points",
]

Configurations = Sequence[Configuration]
MOST_BARS = 20


def lines_along(configurations: Configurations, key: str) -> list[list[Configuration]]:
    """Groups of two or more that differ in that setting alone, each in its order; runs without a manifest in none."""
    groups: dict[str, list[Configuration]] = defaultdict(list)
    for c in configurations:
        if c.identity is not None and c.setting(key) is not None:
            rest = sorted((k, repr(v)) for k, v in c.identity.items() if k != key)
            groups[repr(rest)].append(c)
    return [sorted(line, key=lambda c: c.setting(key)) for line in groups.values() if len(line) > 1]


def points(axes: Any, lines: Sequence[Configurations], key: str, figure: str, filled: bool = True) -> None:
    """Every run as a point, the means joined, one colour a line."""
    for place, line in enumerate(lines):
        color = COLORS[place % len(COLORS)]
        style = {"color": color, "markerfacecolor": color if filled else "white", "alpha": 0.7}
        for c in line:
            values = c.values(figure)
            axes.plot([c.setting(key)] * len(values), values, "o", ms=4, **style)
        known = [(c.setting(key), mean(c, figure)) for c in line if c.values(figure)]
        axes.plot(*zip(*known, strict=True) if known else ([], []), "-" if filled else "--", color=color, lw=1)


def legend(axes: Any, lines: Sequence[Configurations]) -> None:
    """Names the lines by what their configurations have in common; with one line there is nothing to tell apart."""
    if not 1 < len(lines) <= len(COLORS):
        return
    for place, line in enumerate(lines):
        parts = [set(c.label.split(", ")) for c in line]
        common = [part for part in line[0].label.split(", ") if all(part in others for others in parts)]
        axes.plot([], [], color=COLORS[place], label=", ".join(common) or f"line {place + 1}")
    axes.legend(fontsize=7)


def name_bars(figure: Any, axes: Any, bars: Configurations) -> None:
    axes.set_yticks(range(len(bars)), [wrapped(c) for c in bars], fontsize=6.5)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    high = figure.get_size_inches()[1]
    figure.subplots_adjust(left=0.38, top=1 - 0.35 / high)


def mean(configuration: Configuration, figure: str) -> float:
    found = configuration.spread(figure)
    return float("nan") if found is None else found.mean


def best(configurations: Configurations) -> list[Configuration]:
    return sorted(configurations, key=lambda c: -mean(c, "best_val_acc"))


def wrapped(configuration: Configuration) -> str:
    return "\n".join(
        textwrap.wrap(
            f"{configuration.label}, n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{configuration.n}",
            34,
            max_lines=3,
            placeholder=" ...",
        )
    )


def limited(count: int, configurations: Configurations) -> str:
    if count == len(configurations):
        return "n stands behind each name."
    return f"The {count} of {len(configurations)} with the best validation accuracy; n stands behind each name."


def counted(lines: Sequence[Configurations]) -> str:
    ns = sorted({c.n for line in lines for c in line})
    return f"n = {ns[0]} a point." if len(ns) == 1 else f"n = {ns[0]} to {ns[-1]} a point."
