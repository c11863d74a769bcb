"""What the commands lr-range, schedule and interpolate do: the work, the files, and what they say about it.

Ctrl-C ends the work, not the files: what was measured is written before the interrupt goes on.
"""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resnetlab.arguments import sweep
from resnetlab.build import build_module, plan
from resnetlab.config import Config
from resnetlab.containment import contained
from resnetlab.data import ImageData
from resnetlab.errors import ConfigError
from resnetlab.files import digest, write_json, write_rows, write_text
from resnetlab.folders import OUTPUTS, configuration_name, identity
from resnetlab.interpolation import interpolate
from resnetlab.range_test import Ramp, exploded, range_test, suggestions
from resnetlab.report.tools import PICTURES, draw_interpolation, draw_range_test, draw_schedules
from resnetlab.report.write import make_folder
from resnetlab.schedules import shortfall
from resnetlab.speech import speak

__all__ = ["alphas", "interpolate_command", "lr_range", "schedule"]

DRAWN_POINTS = 2000  # of a schedule, at most

Row = dict[str, float]


def lr_range(arguments: Sequence[str], ramp: Ramp, out: Path | None) -> Path:
    """The range test of every job of the command line; writes lr-range.png, .csv, .json and returns their folder."""
    ramp.check()
    found = [(label or configuration_name(config), config) for label, config in sweep(arguments)]
    content = [vars(ramp), *(identity(config) | {"seed": config.seed} for _, config in found)]
    folder = out or OUTPUTS / found[0][1].study / "lr-range" / f"{configuration_name(found[0][1])}-{digest(content)}"
    make_folder(folder)
    curves: dict[str, list[Row]] = {}
    with kept(lambda: write_range_test(folder, ramp, curves, dict(found)), curves.values()):
        for label, config in found:
            with contained(config.threads):
                probe(label, config, ramp, curves.setdefault(label, []))
    return folder


def probe(label: str, config: Config, ramp: Ramp, rows: list[Row]) -> None:
    """One range test, its rows added as they come, and what it suggests."""
    data = ImageData(config.data, config.batch_size, config.shift, config.seed)
    module = build_module(config, data)
    speak(
        f"{label}: {ramp.steps} steps of {config.batch_size} images, momentum {module.momentum:g} throughout; the "
        f"schedule is not used"
    )
    if note := data.note():
        speak(f"note: {note}")
    for row in range_test(module, data, ramp, config.trainer.device):
        rows.append(row)  # one by one, so that an interrupt leaves them
    speak("  ".join(f"{rule} {'none' if lr is None else f'{lr:.3g}'}" for rule, lr in suggestions(rows).items()))
    ended, limit = diverged_at(rows, ramp), f"{ramp.stop:g} times its minimum"
    speak(f"the smoothed loss stayed below {limit}" if ended is None else f"it reached {limit} at lr {ended:.3g}")


def diverged_at(rows: Sequence[Row], ramp: Ramp) -> float | None:
    """The learning rate at which the loss exploded, if it did."""
    least = min((row["smoothed"] for row in rows if math.isfinite(row["smoothed"])), default=math.inf)
    return rows[-1]["lr"] if exploded(rows[-1]["smoothed"], least, ramp) else None


def judged(rows: Sequence[Row], ramp: Ramp) -> dict[str, float | None]:
    """The suggestions of a test that came to its end; none of one that was interrupted."""
    ended = len(rows) == ramp.steps or diverged_at(rows, ramp) is not None
    return suggestions(rows) if ended else suggestions([])


def write_range_test(folder: Path, ramp: Ramp, curves: dict[str, list[Row]], configs: dict[str, Config]) -> None:
    found = {label: rows for label, rows in curves.items() if rows}
    drawn = {label: (rows, judged(rows, ramp)) for label, rows in found.items()}
    draw_range_test(drawn, ramp.shape == "linear", folder / "lr-range.png")
    write_labelled_rows(folder / "lr-range.csv", found)
    runs = [
        {
            "label": label,
            "configuration": configuration_name(configs[label]),
            "differs_from_defaults": identity(configs[label]),
            "seed": configs[label].seed,
            "steps": len(rows),
            "diverged_at": diverged_at(rows, ramp),
            "suggestions": drawn[label][1],
        }
        for label, rows in found.items()
    ]
    write_json(folder / "lr-range.json", {"ramp": vars(ramp), "runs": runs})
    speak(f"picture, figures: {folder / 'lr-range.png'}, {folder / 'lr-range.csv'}, {folder / 'lr-range.json'}")


def schedule(arguments: Sequence[str], out: Path) -> None:
    """Draws lr and momentum of every job of the command line, before anything is trained, and says the main values."""
    if out.is_dir():
        raise ConfigError(f"--out (={out}) is a folder; name a picture, such as {out / 'schedule.png'}")
    if out.suffix.lower() not in PICTURES:
        raise ConfigError(f"--out (={out}) must end in {', '.join(PICTURES[:-1])} or {PICTURES[-1]}")
    make_folder(out.parent)
    plans = {}
    for label, config in sweep(arguments):
        label = label or config.schedule.name
        span, table = plan(config)
        steps = range(0, span.steps, max(1, span.steps // DRAWN_POINTS))
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
    """Writes interpolation.png and .csv, into A's run unless `out` says where; returns their folder."""
    if first.resolve() == second.resolve():
        raise ConfigError(f"{first} and {second} are one file; interpolate between two")
    folder = out or first.parent.parent / f"interpolation-{first.stem}-{second.stem}"
    names = (first.stem, second.stem) if first.stem != second.stem else (f"A, {first.stem}", f"B, {second.stem}")
    points = interpolate(first, second, along, limit, root)
    rows: list[Row] = []
    with kept(lambda: write_interpolation(folder, rows, *names), rows):
        for row in points:
            if not rows:
                make_folder(folder)
            rows.append(row)
    return folder


def write_interpolation(folder: Path, rows: Sequence[Row], first: str, second: str) -> None:
    write_rows(folder / "interpolation.csv", rows)
    draw_interpolation(rows, first, second, folder / "interpolation.png")
    kind = "_recal" if "val/ce_recal" in rows[0] else ""
    finite = [row for row in rows if math.isfinite(row[f"val/ce{kind}"])]
    if finite:
        best = min(finite, key=lambda row: row[f"val/ce{kind}"])
        speak(
            f"least validation cross-entropy {best[f'val/ce{kind}']:.4f} at alpha {best['alpha']:g}"
            f"{' with re-estimated batch-norm statistics' if kind else ''}; {first} is at 1, {second} at 0"
        )
    if broken := sum(row.get("negative_variances", 0) > 0 for row in rows):
        speak(
            f"at {broken} of {len(rows)} alphas running variances on the line are negative, and there is no loss there"
        )
    speak(f"picture, figures: {folder / 'interpolation.png'}, {folder / 'interpolation.csv'}")


@contextmanager
def kept(write: Any, measured: Iterable[Any]) -> Iterator[None]:
    """Writes when the work inside has ended, and also when it is interrupted, unless nothing was measured.

    An interrupt goes on with a message about what was written, or with none.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not any(measured):
            raise
        write()
        raise KeyboardInterrupt("interrupted; what was measured is written") from None
    write()


def alphas(text: str) -> list[float]:
    """ "-0.5:1.5:41" is 41 numbers from -0.5 to 1.5; "0,0.5,1" these three. Raises ConfigError."""
    shape = "start:stop:count, such as -0.5:1.5:41, or numbers: 0,0.5,1"
    try:
        parts = [float(part) for part in text.replace(":", ",").split(",")]
    except ValueError:
        raise ConfigError(f"--alpha (={text}) must be {shape}") from None
    if ":" in text:
        if len(parts) != 3 or "," in text or not 2 <= parts[2] <= 100_000 or parts[2] != int(parts[2]):
            raise ConfigError(f"--alpha (={text}) must be {shape}; count is at least 2")
        start, stop, n = parts[0], parts[1], int(parts[2])
        parts = [start + (stop - start) * i / (n - 1) for i in range(n)]
    if not all(abs(alpha) < 1e6 for alpha in parts):
        raise ConfigError(f"--alpha (={text}) must be numbers below a million in size")
    return [round(alpha, 12) for alpha in parts]  # so that the ends are 0 and 1 where they are meant


def write_labelled_rows(path: Path, curves: dict[str, list[Row]]) -> None:
    """One CSV of several runs' rows, with the run's label in front."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = list(next(iter(curves.values()))[0])
    writer.writerow(["run", *columns])
    for label, rows in curves.items():
        writer.writerows([label, *(repr(row[column]) for column in columns)] for row in rows)
    write_text(path, text.getvalue())
