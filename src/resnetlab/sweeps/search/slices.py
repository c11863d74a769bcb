"""The objective over each key, and over two keys at once."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

Kinds = Mapping[str, BaseDistribution]
PANELS = 4  # in a row
COLORS = "viridis"


def height(trial: FrozenTrial) -> float:
    """The objective, or the last val_acc of a trial that was pruned."""
    return trial.value if trial.value is not None else 0.0


def draw_slices(trials: Sequence[FrozenTrial], kinds: Kinds, name: str) -> Figure:
    """A panel for each key."""
    rows, columns = -(-len(kinds) // PANELS), min(len(kinds), PANELS)
    figure = Figure(figsize=(1.5 + 3.2 * columns, 3.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
    for axes, (key, kind) in zip(panels, kinds.items(), strict=False):
        artist = scatter(axes, trials, lambda t, key=key, kind=kind: place(t, key, kind), height, lambda t: t.number)
        scale(axes, "x", key, kind)
        axes.grid(alpha=0.3)
    for axes in list(figure.axes)[len(kinds) :]:
        axes.set_visible(False)
    for row in range(rows):
        figure.axes[row * columns].set_ylabel(name)
    figure.colorbar(artist, ax=figure.axes, label="trial", ticks=MaxNLocator(integer=True), aspect=30)
    legend(figure, trials, "pruned, at its last val_acc", "gray")
    return figure


def draw_map(trials: Sequence[FrozenTrial], kinds: Kinds, name: str) -> Figure | None:
    """The objective as a colour over the first two keys with numbers, a panel for each choice of the first that has
    choices. Points and no contours: between twenty trials a contour is mostly made up."""
    numeric = [key for key, kind in kinds.items() if not isinstance(kind, CategoricalDistribution)]
    if len(numeric) < 2:
        return None
    x, y = numeric[:2]
    chosen = next((key for key in kinds if key not in numeric), None)
    choices: Sequence[Any] = getattr(kinds[chosen], "choices", (None,)) if chosen else (None,)
    rows, columns = -(-len(choices) // PANELS), min(len(choices), PANELS)
    figure = Figure(figsize=(1.8 + 3.4 * columns, 0.4 + 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    complete = [height(trial) for trial in trials if trial.state == TrialState.COMPLETE]
    low, high = lower(complete), max(complete)
    for axes, choice in zip(panels, choices, strict=False):
        here = [trial for trial in trials if chosen is None or trial.params[chosen] == choice]
        pruned = [trial for trial in here if trial.state == TrialState.PRUNED]
        axes.plot([t.params[x] for t in pruned], [t.params[y] for t in pruned], "v", color="none", mec="gray")
        whole = [trial for trial in here if trial.state == TrialState.COMPLETE]
        artist = scatter(axes, whole, lambda t: t.params[x], lambda t: t.params[y], height, low, high)
        axes.set_title("" if chosen is None else f"{chosen}={choice}", fontsize=10)
        scale(axes, "x", x, kinds[x])
        scale(axes, "y", y, kinds[y])
        axes.label_outer()
        axes.grid(alpha=0.3)
    for axes in list(figure.axes)[len(choices) :]:
        axes.set_visible(False)
    figure.colorbar(artist, ax=figure.axes, label=name, extend="min" if low > min(complete) else "neither")
    legend(figure, trials, "pruned", "none")
    return figure


def lower(values: Sequence[float]) -> float:
    """The lower quartile: the colours are for telling the good ones apart."""
    return sorted(values)[len(values) // 4]


def scatter(axes: Any, trials: Sequence[FrozenTrial], x: Any, y: Any, color: Any, *limits: float) -> Any:
    """Discs of complete trials, triangles of pruned ones."""
    low, high = limits or (min(map(color, trials)), max(map(color, trials)))
    for state, marker in ((TrialState.PRUNED, "v"), (TrialState.COMPLETE, "o")):
        some = [trial for trial in trials if trial.state == state]
        artist = axes.scatter(
            list(map(x, some)), list(map(y, some)), c=list(map(color, some)),
            marker=marker, cmap=COLORS, vmin=low, vmax=max(high, low + 1e-9), edgecolors="black", linewidths=0.5,
        )  # fmt: skip
    return artist


def place(trial: FrozenTrial, key: str, kind: BaseDistribution) -> Any:
    """Where the trial stands on the axis: choices beside each other in the order of the command line, and spread out
    so that equal ones can be told apart."""
    value = trial.params[key]
    if isinstance(kind, CategoricalDistribution):
        return kind.choices.index(value) + 0.5 * (0.618 * trial.number % 1 - 0.5)
    return value


def scale(axes: Any, which: str, key: str, kind: BaseDistribution) -> None:
    """The axis of a key, over the whole of what is searched."""
    axis, limits = getattr(axes, f"{which}axis"), getattr(axes, f"set_{which}lim")
    axis.set_label_text(key)
    if isinstance(kind, CategoricalDistribution):
        axis.set_ticks(range(len(kind.choices)), list(map(str, kind.choices)), rotation=30, ha="right", fontsize=8)
        limits(-0.5, len(kind.choices) - 0.5)
        return
    low, high = kind.low, kind.high  # type: ignore[attr-defined]
    if getattr(kind, "log", False):
        getattr(axes, f"set_{which}scale")("log")
        axis.set_major_locator(LogLocator(numticks=6))
        axis.set_minor_formatter(NullFormatter() if high >= 10 * low else axis.get_minor_formatter())
        limits(low / (high / low) ** 0.05, high * (high / low) ** 0.05)
    else:
        limits(low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1))


def legend(figure: Figure, trials: Sequence[FrozenTrial], pruned: str, color: str) -> None:
    """Below the panels, if there is anything to tell apart. pruned, color: the triangles' meaning and filling."""
    if any(trial.state == TrialState.PRUNED for trial in trials):
        edges = {"gray": "black", "none": "gray"}
        marks = [figure.axes[0].plot([], [], "o", color="gray", mec="black")[0]]
        marks += figure.axes[0].plot([], [], "v", color=color, mec=edges[color])
        figure.legend(marks, ["complete", pruned], loc="outside lower center", ncols=2, fontsize=8, frameon=False)
