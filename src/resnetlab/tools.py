"""What the commands lr-range, schedule and interpolate do: the work, the files, and what they say about it."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnetlab.build import build_module, plan
from resnetlab.data import ImageData
from resnetlab.errors import ConfigError
from resnetlab.files import write_json, write_rows, write_text
from resnetlab.folders import OUTPUTS, configuration_name
from resnetlab.front_door import sweep
from resnetlab.interpolation import interpolate
from resnetlab.range_test import Ramp, range_test, suggestions
from resnetlab.report.tools import draw_interpolation, draw_range_test, draw_schedules
from resnetlab.schedules import shortfall
from resnetlab.speech import speak

__all__ = ["alphas", "interpolate_command", "lr_range", "schedule"]

DRAWN_POINTS = 2000  # of a schedule, at most


def lr_range(arguments: Sequence[str], ramp: Ramp, out: Path | None) -> Path:
    """The range test of every job of the command line; writes lr-range.png, .csv, .json and returns their folder."""
    ramp.check()
    chosen = any(argument.startswith("schedule=") for argument in arguments)
    found = sweep(arguments if chosen else ["schedule=constant", *arguments])
    folder = out or OUTPUTS / found[0][1].study / "lr-range" / configuration_name(found[0][1])
    curves: dict[str, Any] = {}
    content: list[dict[str, Any]] = []
    for label, config in found:
        data = ImageData(config.data, config.batch_size, config.shift, config.seed)
        module = build_module(config, data)
        speak(f"range test{': ' if label else ''}{label}, {ramp.steps} steps of {config.batch_size} images")
        if note := data.note():
            speak(f"note: {note}")
        rows = range_test(module, data, ramp, config.trainer.device)
        suggested = suggestions(rows)
        curves[label or config.model.name] = (rows, suggested)
        ended = rows[-1]["lr"] if len(rows) < ramp.steps else None
        content.append(
            {
                "label": label,
                "configuration": configuration_name(config),
                "diverged_at": ended,
                "suggestions": suggested,
            }
        )
        speak("  ".join(f"{rule} {'none' if lr is None else f'{lr:.3g}'}" for rule, lr in suggested.items()))
        speak("no divergence up to the end of the ramp" if ended is None else f"diverged at lr {ended:.3g}")
    folder.mkdir(parents=True, exist_ok=True)
    draw_range_test(curves, ramp.shape == "linear", folder / "lr-range.png")
    write_labelled_rows(folder / "lr-range.csv", {label: rows for label, (rows, _) in curves.items()})
    write_json(folder / "lr-range.json", {"ramp": vars(ramp), "runs": content})
    speak(f"picture, figures: {folder / 'lr-range.png'}, {folder / 'lr-range.csv'}, {folder / 'lr-range.json'}")
    return folder


def schedule(arguments: Sequence[str], out: Path) -> None:
    """Draws lr and momentum of every job of the command line, before anything is trained, and says the main values."""
    plans = {}
    for label, config in sweep(arguments):
        span, table = plan(config)
        label = label or config.schedule.name
        every = max(1, span.steps // DRAWN_POINTS)
        steps = range(0, span.steps, every)
        plans[label] = [(k / span.steps_per_epoch, float(table[k, 0]), float(table[k, 1])) for k in steps]
        peak = int(table[:, 0].argmax())
        speak(
            f"{label}: {span.epochs} epochs of {span.steps_per_epoch} steps; lr {table[0, 0]:.3g} at first, at most "
            f"{table[peak, 0]:.3g} in epoch {peak // span.steps_per_epoch + 1}, {table[-1, 0]:.3g} at last; momentum "
            f"{table[:, 1].min():.3g} to {table[:, 1].max():.3g}"
        )
        if config.schedule.stateful:
            speak(
                f"note: {config.schedule.name} changes the lr by the validation figures; drawn is what it begins with"
            )
        if remark := shortfall(config.schedule, span):
            speak(f"note: {remark}")
    draw_schedules(plans, out)
    speak(f"picture: {out}")


def interpolate_command(
    first: Path, second: Path, along: Sequence[float], limit: int | None, root: str | None, out: Path | None
) -> Path:
    """Writes interpolation.png and .csv, beside A's checkpoints unless `out` says where; returns their folder."""
    folder = out or first.parent.parent / f"interpolation-{first.stem}-{second.stem}"
    if limit is not None:
        if limit < 10:
            raise ConfigError(f"--limit (={limit}) must be at least 10 images")
        speak(f"note: a subset, the first {limit:,} training and {limit // 5:,} validation images")
    rows = interpolate(first, second, along, limit, root)
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "interpolation.csv", rows)
    draw_interpolation(rows, first.stem, second.stem, folder / "interpolation.png")
    kind = "_recal" if "val/ce_recal" in rows[0] else ""
    best = min(rows, key=lambda row: row[f"val/ce{kind}"])
    speak(
        f"least validation cross-entropy {best[f'val/ce{kind}']:.4f} at alpha {best['alpha']:g}"
        f"{' with re-estimated batch-norm statistics' if kind else ''}; {first.stem} is at 1, {second.stem} at 0"
    )
    if broken := [row["alpha"] for row in rows if row.get("negative_variances", 0) > 0]:
        speak(f"running variances on the line are negative at {len(broken)} of {len(rows)} alphas: no loss there")
    speak(f"picture, figures: {folder / 'interpolation.png'}, {folder / 'interpolation.csv'}")
    return folder


def alphas(text: str) -> list[float]:
    """ "-0.5:1.5:41" is 41 numbers from -0.5 to 1.5; "0,0.5,1" these three. Raises ConfigError."""
    try:
        if ":" in text:
            start, stop, count = text.split(":")
            n = int(count)
            found = [float(start) + (float(stop) - float(start)) * i / (n - 1) for i in range(n)]
        else:
            found = [float(part) for part in text.split(",")]
    except (ValueError, ZeroDivisionError):
        raise ConfigError(
            f"--alpha (={text}) must be start:stop:count, such as -0.5:1.5:41, or numbers: 0,0.5,1"
        ) from None
    if not found or not all(abs(alpha) < 1e6 for alpha in found):
        raise ConfigError(f"--alpha (={text}) must name at least one finite number")
    return found


def write_labelled_rows(path: Path, curves: dict[str, list[dict[str, float]]]) -> None:
    """One CSV of several runs' rows, with the run's label in front."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = list(next(iter(curves.values()))[0])
    writer.writerow(["run", *columns])
    for label, rows in curves.items():
        writer.writerows([label, *(repr(row[column]) for column in columns)] for row in rows)
    write_text(path, text.getvalue())
