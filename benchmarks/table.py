"""The tables on the console."""

from collections.abc import Sequence
from typing import Any

from benchmarks.options import Setting
from resnetlab.console import say

BOUNDS = {"arithmetic": "the rate of large matrix products", "memory": "the copy rate of large arrays"}
HEAD = ["", "images/s", "least to most", "95 %", "ms/step", "bare's seconds", "95 %", "of roofline", "peak MiB"]
HEAD += ["warm-up s", "n"]
HEAD_TOGETHER = ["at once", "threads each", "images/s together", "least to most", "s of the machine an epoch"]
HEAD_TOGETHER += ["peak MiB together"]


def show(content: dict[str, Any], settings: Sequence[Setting]) -> None:
    """One table a setting, then what several runs at once cost, and what was left out and why."""
    machine = content["machine"]
    say(f"{content['model']}, {content['data']}, {machine['device']}, torch {machine['torch']}")
    for setting in settings:
        if any(map(setting.matches, content["rows"])):
            show_setting(content, setting)
    for row in content["rows"]:
        if row["seconds_between_epochs"] is not None:
            where = f"{row['name']}, batch {row['batch_size']}, {row['precision']}"
            between = f"between two epochs, validation not counted: {row['seconds_between_epochs']:.2f} s"
            say(f"{between}, so {row['images_per_second_epoch']:,.1f} images/s over an epoch ({where})")
    if content["concurrent"]:
        say("\n" + table([HEAD_TOGETHER, *map(together_cells, content["concurrent"])]))
    for entry in content["left_out"]:
        say(f"left out: {entry['name']} (batch {entry['batch_size']}, {entry['precision']}): {entry['reason']}")


def show_setting(content: dict[str, Any], setting: Setting) -> None:
    rows = [row for row in content["rows"] if setting.matches(row)]
    say(f"\nbatch {setting.batch_size}, {setting.precision}")
    say(table([HEAD, *map(cells, rows)]))
    for row in rows:
        if row["last_loss"] is None:
            say(f"  {row['name']}: its last loss is not finite")
    for entry in filter(setting.matches, content["comparisons"]):
        times = f"{entry['times']:.3f} times as fast as {entry['over']} over an epoch"
        spread = bounds(entry["times_95"], ".3f", " ({} to {})") or " (too few rounds for an interval)"
        say(f"  {entry['name']} is {times}{spread}, n = {entry['n']}")
    for roof in content["roofline"]:
        if roof["precision"] == setting.precision:
            say(f"  roofline: {roof['images_per_second']:,.0f} images/s, by {BOUNDS[roof['bound_by']]}")


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["name"],
        f"{row['images_per_second']:,.1f}",
        bounds(row["images_per_second_range"], ",.1f"),
        bounds(row["images_per_second_95"], ",.1f"),
        f"{1000 * row['seconds_per_step']:.1f}",
        number(row["ratio_to_bare"], ".3f"),
        bounds(row["ratio_95"], ".3f"),
        number(row["share_of_roofline"], ".1%"),
        number(row["peak_mib"], ",.0f"),
        number(row["warm_up_seconds"], ".1f"),
        f"{row['rounds']}",
    )


def together_cells(row: dict[str, Any]) -> tuple[str, ...]:
    windows = row["images_per_second_windows"]
    return (
        f"{row['runs']}",
        f"{row['threads']}",
        f"{row['images_per_second']:,.1f}",
        bounds([min(windows), max(windows)], ",.1f"),
        f"{row['machine_seconds_per_epoch']:,.1f}",
        f"{row['peak_mib']:,.0f}",
    )


def table(lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the first to the left, the others to the right."""
    first, *others = ([*column] for column in zip(*lines, strict=True))
    columns = [[cell.ljust(max(map(len, first))) for cell in first]]
    columns += [[cell.rjust(max(map(len, column))) for cell in column] for column in others]
    return "\n".join(map("  ".join, zip(*columns, strict=True)))


def bounds(ends: Sequence[float] | None, form: str, frame: str = "{} to {}") -> str:
    return "" if ends is None else frame.format(*(format(end, form) for end in ends))


def number(value: float | None, form: str) -> str:
    return "\N{EN DASH}" if value is None else format(value, form)
