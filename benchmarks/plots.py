"""The plots of a measurement, from the JSON's content alone."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from benchmarks.options import NAMES, Setting
from benchmarks.table import BOUNDS
from resnetlab.runs.files import write_atomically

COLORS = dict(
    zip(NAMES, ("#d55e00", "#e69f00", "#cc79a7", "#000000", "#0072b2", "#56b4e9", "#009e73", "#f0e442"), strict=True)
)
MARKERS = dict(zip(NAMES, "vs^oDPX*", strict=True))


def draw(content: dict[str, Any], out: Path) -> list[Path]:
    """Write STEM-peers.png, and STEM-sizes.png where there is more than one batch size or several runs at once."""
    first = Setting(content["rows"][0]["batch_size"], content["rows"][0]["precision"])
    paths = [write(peers(content, first), out, "peers")]
    if len({row["batch_size"] for row in content["rows"]}) > 1 or len(content["concurrent"]) > 1:
        paths.append(write(sizes_and_runs(content, first), out, "sizes"))
    return paths


def write(figure: Figure, out: Path, what: str) -> Path:
    path = out.with_name(f"{out.stem}-{what}.png")
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=130))
    return path


def peers(content: dict[str, Any], first: Setting) -> Figure:
    """The first setting: each round a dot, the median a bar, the roofline a line."""
    rows = sorted(filter(first.matches, content["rows"]), key=lambda row: row["images_per_second"])
    figure = Figure(figsize=(7.5, 1.6 + 0.45 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        color, dots = COLORS[row["name"]], row["images_per_second_rounds"]
        axes.barh(place, row["images_per_second"], height=0.62, color=color, alpha=0.35)
        heights = [place + 0.44 * ((number * 0.618) % 1 - 0.5) for number in range(len(dots))]
        axes.plot(dots, heights, ".", color=color, markersize=4)
        note(axes, rate_text(row), (max(dots), place), (6, 0), ha="left", va="center")
    most = max(max(row["images_per_second_rounds"]) for row in rows)
    for roof in (r for r in content["roofline"] if r["precision"] == first.precision):
        allowed = roof["images_per_second"]
        label = f"roofline {allowed:,.0f}, by {BOUNDS[roof['bound_by']]}"
        if allowed < 4 * most:
            axes.axvline(allowed, color="#555555", linestyle="--", linewidth=1)
            most = max(most, allowed)
        else:
            allowed, label = 1.2 * most, f"{label}, beyond the axis"
        note(axes, label, (allowed, -0.75), (-5, 0), ha="right", va="center")
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set(xlabel="images a second: median, and a dot for each round", xlim=(0, 1.2 * most))
    axes.set_ylim(-1.1, len(rows) - 0.5)
    axes.grid(axis="x", alpha=0.3, linewidth=0.5)
    axes.set_title(f"batch {first.batch_size}, {title(content, first)}", fontsize=9, loc="left")
    return figure


def sizes_and_runs(content: dict[str, Any], first: Setting) -> Figure:
    """Images a second over the batch size (thick: all rounds), and what runs at once cost, beside each other."""
    panels = [by_size] if len({row["batch_size"] for row in content["rows"]}) > 1 else []
    panels += [by_runs] if len(content["concurrent"]) > 1 else []
    figure = Figure(figsize=(9.2 if len(panels) > 1 else 6.5, 4.0), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.set_xscale("log")
        axes.set_xticks(panel(axes, content, first))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.grid(alpha=0.3, linewidth=0.5)
    figure.suptitle(title(content, first), fontsize=9, x=0.01, ha="left")
    return figure


def by_size(axes: Any, content: dict[str, Any], first: Setting) -> list[int]:
    found = [row for row in content["rows"] if row["precision"] == first.precision]
    for name in NAMES:
        rows = sorted((row for row in found if row["name"] == name), key=lambda row: row["batch_size"])
        if rows:
            sizes, color = [row["batch_size"] for row in rows], COLORS[name]
            rates = [row["images_per_second"] for row in rows]
            axes.plot(sizes, rates, marker=MARKERS[name], color=color, markersize=5, linewidth=1.2, label=name)
            low, high = zip(*(row["images_per_second_range"] for row in rows), strict=True)
            axes.vlines(sizes, low, high, color=color, linewidth=3, alpha=0.4)
    axes.set(xlabel="batch size", ylabel="images a second", ylim=(0, None))
    axes.legend(fontsize=8, loc="best")
    return sorted({row["batch_size"] for row in found})


def by_runs(axes: Any, content: dict[str, Any], first: Setting) -> list[int]:
    """Seconds of the machine that a run's epoch costs."""
    rows = content["concurrent"]
    counts, cost = [row["runs"] for row in rows], [row["machine_seconds_per_epoch"] for row in rows]
    axes.plot(counts, cost, marker="o", color=COLORS[rows[0]["name"]], markersize=5, linewidth=1.2)
    for row, at in zip(rows, zip(counts, cost, strict=True), strict=True):
        note(axes, f"{rate_text(row)}/s", at, (4, 6), ha="left")
    axes.set(ylabel="seconds of the machine per 50,000 images", ylim=(0, 1.2 * max(cost)))
    axes.set_xlabel(f"{rows[0]['name']} processes at once\n(labels: images a second, all together)")
    axes.margins(x=0.2)
    return counts


def note(axes: Any, text: str, at: tuple[float, float], shift: tuple[float, float], **where: str) -> None:
    axes.annotate(text, at, shift, textcoords="offset points", fontsize=8, **where)


def rate_text(row: dict[str, Any]) -> str:
    return f"{row['images_per_second']:,.{1 if row['images_per_second'] < 1000 else 0}f}"


def title(content: dict[str, Any], first: Setting) -> str:
    return f"{content['model']}, {content['data']}, {first.precision}; {content['machine']['device']}"
