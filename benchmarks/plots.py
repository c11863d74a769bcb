"""The pictures of a measurement, from the JSON's content alone."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from resnetlab.bench.options import NAMES
from resnetlab.bench.roofline import BOUNDS
from resnetlab.files import write_atomically

__all__ = ["draw"]

COLORS = dict(zip(NAMES, ("#d55e00", "#e69f00", "#cc79a7", "#000000", "#0072b2", "#56b4e9", "#009e73"), strict=True))
MARKERS = dict(zip(NAMES, "vs^oDPX", strict=True))


def draw(content: dict[str, Any], out: Path) -> list[Path]:
    """Writes STEM-peers.png, and STEM-sizes.png where there is more than one batch size or several runs at once."""
    first = content["rows"][0]
    paths = [write(peers(content, first), out, "peers")]
    sizes = len({row["batch_size"] for row in content["rows"]}) > 1
    if sizes or len(content["concurrent"]) > 1:
        paths.append(write(sizes_and_runs(content, first, sizes), out, "sizes"))
    return paths


def write(figure: Figure, out: Path, what: str) -> Path:
    path = out.with_name(f"{out.stem}-{what}.png")
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=130))
    return path


def peers(content: dict[str, Any], first: dict[str, Any]) -> Figure:
    """The first setting: each round a dot, the median a bar, the roofline a line."""
    found = [r for r in content["rows"] if alike(r, first)]
    found.sort(key=lambda row: row["images_per_second"])
    figure = Figure(figsize=(7.5, 1.6 + 0.45 * len(found)), layout="constrained")
    axes = figure.subplots()
    most = 0.0
    for place, row in enumerate(found):
        color, dots = COLORS[row["name"]], row["images_per_second_rounds"]
        axes.barh(place, row["images_per_second"], height=0.62, color=color, alpha=0.35)
        heights = [place + 0.44 * ((number * 0.618) % 1 - 0.5) for number in range(len(dots))]
        axes.plot(dots, heights, ".", color=color, markersize=4)
        note(axes, f"{row['images_per_second']:,.{digits(row)}f}", (max(dots), place), (6, 0), ha="left", va="center")
        most = max(most, *dots)
    axes.set_yticks(range(len(found)), [row["name"] for row in found])
    for roof in (r for r in content["roofline"] if r["precision"] == first["precision"]):
        allowed = roof["images_per_second"]
        label = f"roofline {allowed:,.0f}, by {BOUNDS[roof['bound_by']]}"
        shown = allowed < 4 * most
        if shown:
            axes.axvline(allowed, color="#555555", linestyle="--", linewidth=1)
        note(
            axes,
            label if shown else f"{label}, beyond the axis",
            (allowed if shown else 1.2 * most, -0.75),
            (-5, 0),
            ha="right",
            va="center",
        )
        most = max(most, allowed) if shown else most
    axes.set(xlabel="images a second: median, and a dot for each round", ylim=(-1.1, len(found) - 0.5))
    axes.set_xlim(0, 1.2 * most)
    axes.grid(axis="x", alpha=0.3, linewidth=0.5)
    axes.set_title(f"batch {first['batch_size']}, {title(content, first)}", fontsize=9, loc="left")
    return figure


def note(axes: Any, text: str, at: tuple[float, float], shift: tuple[float, float], **where: str) -> None:
    axes.annotate(text, at, shift, textcoords="offset points", fontsize=8, **where)


def sizes_and_runs(content: dict[str, Any], first: dict[str, Any], sizes: bool) -> Figure:
    """Images a second over the batch size (thick: all rounds), and what runs at once cost, beside each other."""
    several = len(content["concurrent"]) > 1
    figure = Figure(figsize=(9.2 if sizes and several else 6.5, 4.0), layout="constrained")
    panels = list(figure.subplots(1, sizes + several, squeeze=False)[0])
    if sizes:
        by_size(panels[0], content, first)
    if several:
        by_runs(panels[-1], content["concurrent"])
    figure.suptitle(title(content, first), fontsize=9, x=0.01, ha="left")
    return figure


def by_size(axes: Any, content: dict[str, Any], first: dict[str, Any]) -> None:
    found = [r for r in content["rows"] if r["precision"] == first["precision"]]
    ticks = sorted({row["batch_size"] for row in found})
    for name in NAMES:
        points = sorted((r["batch_size"], r["images_per_second"]) for r in found if r["name"] == name)
        if points:
            style = {"marker": MARKERS[name], "color": COLORS[name], "markersize": 5, "linewidth": 1.2}
            axes.plot(*zip(*points, strict=True), label=name, **style)
            for row in (r for r in found if r["name"] == name):
                ends = [f(row["images_per_second_rounds"]) for f in (min, max)]
                axes.plot([row["batch_size"]] * 2, ends, color=COLORS[name], linewidth=3, alpha=0.4)
    axes.set(xscale="log", xlabel="batch size", ylabel="images a second", ylim=(0, None))
    plain_ticks(axes, ticks)
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.legend(fontsize=8, loc="best")


def by_runs(axes: Any, found: list[dict[str, Any]]) -> None:
    """Seconds of the machine that a run's epoch costs; below the line of equal cost, runs at once are cheaper."""
    counts = [row["runs"] for row in found]
    cost = [row["machine_seconds_per_epoch"] for row in found]
    axes.plot(counts, cost, marker="o", color=COLORS[found[0]["name"]], markersize=5, linewidth=1.2)
    for row in found:
        text = f"{row['images_per_second']:,.{digits(row)}f}/s"
        note(axes, text, (row["runs"], row["machine_seconds_per_epoch"]), (4, 6), ha="left")
    axes.set(
        xscale="log",
        xlabel=f"{found[0]['name']} processes at once\n(labels: images a second, all together)",
        ylabel="seconds of the machine per 50,000 images",
        ylim=(0, 1.2 * max(cost)),
    )
    axes.margins(x=0.12)
    plain_ticks(axes, counts)
    axes.grid(alpha=0.3, linewidth=0.5)


def plain_ticks(axes: Any, ticks: list[int]) -> None:
    axes.set_xticks(ticks)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())


def digits(row: dict[str, Any]) -> int:
    return 1 if row["images_per_second"] < 1000 else 0


def title(content: dict[str, Any], first: dict[str, Any]) -> str:
    return f"{content['model']}, {content['data']}, {first['precision']}; {content['machine']['device']}"


def alike(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return (a["batch_size"], a["precision"]) == (b["batch_size"], b["precision"])
