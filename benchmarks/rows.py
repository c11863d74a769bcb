"""The rows of the table: medians over rounds, their 95 % intervals, and ratios within rounds."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from scipy import stats

from benchmarks.options import NAMES, Setting
from benchmarks.rounds import Measurements

IMAGES = 50_000  # an epoch of CIFAR-10
FINE = ("lab_eager", "bare")  # in one process, in turn every few steps
LABS = ("lab_eager", "lab_compile", "lab_graph", "lab_graph_compile")

Grains = list[list[float]]


def rows(found: Measurements, setting: Setting, roof: dict[str, Any] | None) -> list[dict[str, Any]]:
    """One row for each name that has taken a turn. roof: the setting's roofline."""
    return [row(name, found, setting, roof) for name in NAMES if found.turns.get(name)]


def row(name: str, found: Measurements, setting: Setting, roof: dict[str, Any] | None) -> dict[str, Any]:
    """ratio_to_bare: of a step's seconds. images_per_second_epoch: over an epoch of CIFAR-10 and what lies between it
    and the next. last_loss: None where it is not finite. What is not known is None."""
    rates, facts = [rate(grains) for grains in found.turns[name]], found.facts[name]
    median, ratios = statistics.median(rates), ratios_of(name, "bare", found.turns)
    loss, between = facts.get("loss"), between_epochs(name, found)
    return {
        "name": name,
        **vars(setting),
        "images_per_second": median,
        "images_per_second_range": [min(rates), max(rates)],
        "images_per_second_95": interval(rates),
        "images_per_second_rounds": rates,
        "seconds_per_step": setting.batch_size / median,
        "rounds": len(rates),
        "ratio_to_bare": statistics.median(ratios) if ratios else None,
        "ratio_95": interval(ratios),
        "ratios": len(ratios),
        "share_of_roofline": median / roof["images_per_second"] if roof else None,
        **{key: facts.get(key) for key in ("peak_mib", "first_step_seconds", "warm_up_seconds")},
        "seconds_between_epochs": between,
        "images_per_second_epoch": None if between is None else IMAGES / (IMAGES / median + between),
        "last_loss": loss if loss is not None and math.isfinite(loss) else None,
        **{key: facts.get(key) for key in ("parameters", "version")},
    }


def together_row(name: str, setting: Setting, threads: int, windows: list[list[Grains]]) -> dict[str, Any]:
    """Of processes at once. windows: the grains of each process in each window, in which all ran for about as long."""
    rates = [sum(map(rate, window)) for window in windows]
    return {
        "name": name,
        **vars(setting),
        "runs": len(windows[0]),
        "threads": threads,
        "images_per_second": statistics.median(rates),
        "images_per_second_windows": rates,
        "machine_seconds_per_epoch": IMAGES / statistics.median(rates),
    }


def rate(grains: Grains) -> float:
    """Images a second of a turn."""
    return sum(images for images, _ in grains) / sum(seconds for _, seconds in grains)


def ratios_of(name: str, other: str, turns: dict[str, list[Grains]]) -> list[float]:
    """How many times as long `name` takes for an image as `other` does, within each round; for FINE the round's median
    over grains, which follow each other so closely that they are no independent measurements."""
    pairs = zip(turns.get(name, []), turns.get(other, []), strict=False)
    if name in FINE and other in FINE:
        return [statistics.median(rate([b]) / rate([a]) for a, b in zip(*pair, strict=True)) for pair in pairs]
    return [rate(theirs) / rate(mine) for mine, theirs in pairs]


def between_epochs(name: str, found: Measurements) -> float | None:
    """Seconds between two epochs, where the peer has seen an epoch's end."""
    seconds = found.between_epochs.get(name)
    return statistics.median(seconds) if seconds else None


def interval(values: Sequence[float]) -> list[float] | None:
    """The 95 % interval of the median, from ranks alone; None for fewer than six values, which give none."""
    if len(values) < 6:
        return None
    found = stats.quantile_test(list(values), p=0.5).confidence_interval(0.95)
    return [found.low, found.high] if math.isfinite(found.low) and math.isfinite(found.high) else None


def comparisons(found: Measurements, setting: Setting) -> list[dict[str, Any]]:
    """How many times as fast the lab is as each of the others, engine by engine, in an epoch of CIFAR-10.

    What lies between two epochs is counted for those of whom it is known.
    """
    entries = []
    for lab in (name for name in LABS if found.turns.get(name)):
        for other in (name for name in NAMES if name not in LABS and found.turns.get(name)):
            times = epoch_ratios(lab, other, found)
            entry = {"name": lab, "over": other, "times": statistics.median(times), "times_95": interval(times)}
            entries.append(entry | {"n": len(times)} | vars(setting))
    return entries


def epoch_ratios(lab: str, other: str, found: Measurements) -> list[float]:
    """How many times as long an epoch of the other takes, within each round."""
    extra, extra_lab = (between_epochs(name, found) or 0.0 for name in (other, lab))
    pairs = zip(found.turns[other], ratios_of(lab, other, found.turns), strict=False)
    epochs = [(IMAGES / rate(theirs), ratio) for theirs, ratio in pairs]
    return [(seconds + extra) / (seconds * ratio + extra_lab) for seconds, ratio in epochs]
