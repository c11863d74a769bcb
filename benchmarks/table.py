"""The tables on the console."""

from collections.abc import Sequence
from typing import Any

from resnetlab.bench.options import Setting
from resnetlab.bench.roofline import BOUNDS
from resnetlab.speech import speak

__all__ = ["show", "table"]

HEAD = (
    *("", "images/s", "least to most", "95 %", "ms/step", "bare's seconds", "95 %"),
    *("of roofline", "peak MiB", "warm-up s", "n"),
)


def show(content: dict[str, Any], settings: Sequence[Setting]) -> None:
    """One table a setting, then what several runs at once cost, and what was left out and why."""
    machine = content["machine"]
    speak(f"{content['model']}, {content['data']}, {machine['device']}, torch {machine['torch']}")
    for setting in settings:
        of = [row for row in content["rows"] if matches(row, setting)]
        if of:
            speak(f"\nbatch {setting.batch_size}, {setting.precision}")
            speak(table([HEAD, *map(cells, of)]))
        for row in (row for row in of if row["last_loss"] is None):
            speak(f"  {row['name']}: its last loss is not finite")
        for entry in (c for c in content["comparisons"] if matches(c, setting)):
            times = f"{entry['times']:.3f} times as fast as {entry['over']} over an epoch"
            spread = bounds(entry["times_95"], ".3f", " ({} to {})") or " (too few rounds for an interval)"
            speak(f"  {entry['name']} is {times}{spread}, n = {entry['n']}")
        for roof in (r for r in content["roofline"] if r["precision"] == setting.precision and of):
            speak(f"  roofline: {roof['images_per_second']:,.0f} images/s, by {BOUNDS[roof['bound_by']]}")
    for row in content["rows"]:
        if row["seconds_between_epochs"] is not None:
            where = f"{row['name']}, batch {row['batch_size']}, {row['precision']}"
            between = f"between two epochs, validation not counted: {row['seconds_between_epochs']:.2f} s"
            speak(f"{between}, so {row['images_per_second_epoch']:,.1f} images/s over an epoch ({where})")
    if content["concurrent"]:
        head = (
            "at once",
            "threads each",
            "images/s together",
            "least to most",
            "s of the machine an epoch",
            "peak MiB together",
        )
        speak("\n" + table([head, *map(together, content["concurrent"])]))
    for entry in content["left_out"]:
        speak(f"left out: {entry['name']} (batch {entry['batch_size']}, {entry['precision']}): {entry['reason']}")


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


def together(row: dict[str, Any]) -> tuple[str, ...]:
    windows = row["images_per_second_windows"]
    return (
        f"{row['runs']}",
        f"{row['threads']}",
        f"{row['images_per_second']:,.1f}",
        f"{min(windows):,.1f} to {max(windows):,.1f}",
        f"{row['machine_seconds_per_epoch']:,.1f}",
        f"{row['peak_mib']:,.0f}",
    )


def table(lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def written(line: Sequence[str]) -> str:
        first, *others = (f"{cell:{'<>'[place > 0]}{widths[place]}}" for place, cell in enumerate(line))
        return "  ".join([first, *others])

    return "\n".join(map(written, lines))


def bounds(ends: Sequence[float] | None, form: str, frame: str = "{} to {}") -> str:
    return "" if ends is None else frame.format(*(format(end, form) for end in ends))


def number(value: float | None, form: str) -> str:
    return "\N{EN DASH}" if value is None else format(value, form)


def matches(entry: dict[str, Any], setting: Setting) -> bool:
    return (entry["batch_size"], entry["precision"]) == (setting.batch_size, setting.precision)
