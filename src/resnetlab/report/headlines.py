"""What a report says before its tables: each study's best configuration, how to repeat it, and stale statistics."""

import json
import shlex
from collections.abc import Iterator
from typing import Any

from resnetlab.report.columns import mean_sd
from resnetlab.report.groups import Collection, Configuration, format_value
from resnetlab.runs.load import Run, is_count
from resnetlab.runs.summary import lag_note

ELSEWHERE = {"precision": "trainer.precision"}  # keys of the identity that the command line calls otherwise


def best_lines(collection: Collection) -> Iterator[tuple[str, str]]:
    """(the configuration with the best mean of best_val_acc, its command) of each study; no command: not known."""
    for study, (best, *others) in collection.studies.items():
        if not best.values("best_val_acc"):
            continue
        equal = sum(other.mean("best_val_acc") == best.mean("best_val_acc") for other in others)
        rank = f"as high as {equal} more" if equal else "the highest mean"
        among = f", {rank} of {len(others) + 1} configurations" if others else ""
        accuracy = mean_sd(best.interval("best_val_acc"), best.n, 4)
        yield f"{study}: {best.label}, best val acc {accuracy} (n = {best.n}){among}", command(best)


def command(configuration: Configuration) -> str:
    """A shell command that trains the configuration with the same seeds; "" where no manifest tells its settings."""
    if configuration.identity is None:
        return ""
    settings = [f"{ELSEWHERE.get(key, key)}={override(value)}" for key, value in configuration.identity.items()]
    root = configuration.runs[0].manifest.get("config", {}).get("data", {}).get("root")
    if root is not None and "data.digest" in configuration.identity:  # images of the user's own
        settings = [f"data.root={root}", *(s for s in settings if not s.startswith("data.digest="))]
    seeds = sorted({run.seed for run in configuration.runs})
    if seeds == list(range(len(seeds))):
        settings += [f"seeds={len(seeds)}"] if len(seeds) > 1 else []
    else:
        settings = ["-m"] * (len(seeds) > 1) + settings + [f"seed={','.join(map(str, seeds))}"]
    return "python train.py " + " ".join(map(shlex.quote, settings))


def override(value: Any) -> str:
    """A setting as the command line takes it; a float in full."""
    plain = value is None or isinstance(value, bool | list | dict)
    return json.dumps(value).replace(" ", "") if plain else str(value)


def lag_line(collection: Collection) -> str:
    """One sentence on the runs whose running batch-norm statistics lag; "" where none is seen to."""
    lagging = [c for c in collection.configurations if any(map(lags, c.runs))]
    if not lagging:
        return ""
    count = sum(lags(run) for c in lagging for run in c.runs)
    names = ", ".join(f"{c.study}: {c.label}" for c in lagging[:3]) + (" ..." if len(lagging) > 3 else "")
    return (
        f"Batch-norm statistics lag in {count} of {len(collection.runs)} runs ({names}): their plain validation "
        "accuracy says little; recalibrate_bn=true adds a re-estimated one, see docs/batch-norm-lag.md."
    )


def lags(run: Run) -> bool:
    """Whether lag_note has something to say of it; never of a network without running statistics."""
    statistics, known = run.manifest.get("model", {}).get("statistics", 1), run.manifest.get("classes")
    guessed = 100 if run.summary.get("data") == "cifar100" else 10  # of older runs, which do not say
    classes = int(known or 0) if is_count(known, 2) else guessed
    return bool(statistics) and lag_note(run.rows, classes) is not None


def described(configurations: list[Configuration]) -> str:
    """Data set, network and subset of a study, as far as its configurations share them: "cifar10, resnet20v2"."""
    first = configurations[0]
    shared = [key for key in ("data", "model") if len({c.setting(key) for c in configurations}) == 1]
    parts = [format_value(first.setting(key)) for key in shared]
    return ", ".join([*parts, *([first.reduced_data] if common_reduction(configurations) else [])])


def common_reduction(configurations: list[Configuration]) -> bool:
    """Whether all of them saw the same part of the data."""
    return len({c.reduced_data for c in configurations}) == 1 and configurations[0].reduced_data != ""
