"""What a report says before its tables: what came out of each study, how to repeat it, and stale statistics."""

import json
import math
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from resnetlab.console import TRAIN_COMMAND
from resnetlab.report.columns import mean_sd
from resnetlab.report.compare import Comparison, compare_with_best, is_shown
from resnetlab.report.groups import Collection, Configuration, best_first, format_value, groups_along, short_labels
from resnetlab.runs.load import Run, is_count
from resnetlab.runs.summary import lag_note

RECAL = "final_val_acc_recal"
IMAGES = ("data", *(f"data.{key}" for key in ("digest", "labels", "split", "pool", "val_size", "split_seed")))
MOST_NAMED, MOST_CHARACTERS = 5, 60  # configurations in a sentence, and characters of each
ELSEWHERE = {"precision": "trainer.precision"}  # keys of the identity that the command line calls otherwise


class Headline(NamedTuple):
    """What came out of a study. lead: one clause. sentences: the figures behind it. ranked: of its images, best first.

    command: repeats the best; "" where its settings are not known.
    """

    study: str
    lead: str
    sentences: list[str]
    ranked: list[Configuration]
    command: str


def headlines(collection: Collection) -> Iterator[Headline]:
    """The headline of each study with an accuracy; where statistics lag, by the re-estimated one, if there is one."""
    for study, configurations in collection.studies.items():
        lagging = any(lags(run) for c in configurations for run in c.runs)
        metric = RECAL if lagging and any(c.values(RECAL) for c in configurations) else "best_val_acc"
        ranked = best_first(configurations, metric)
        images = [[*map(c.setting, IMAGES), c.reduced_data] for c in ranked]
        ranked = [c for c, own in zip(ranked, images, strict=True) if own == images[0]]
        if ranked[0].values(metric):
            best, *others = [c for c in ranked if c.values(metric)]
            pairs = compare_with_best(best, others, metric)
            sentences = [accuracy_sentence(best, metric, collection.thresholds), *undecided(best, pairs)]
            sentences += ["Those on other images are not compared."] * (len(ranked) < len(configurations))
            yield Headline(study, lead_clause(best, pairs, metric), sentences, ranked, command(best))


def lead_clause(best: Configuration, pairs: Sequence[Comparison], metric: str) -> str:
    """Whether the best is shown to be it; of configurations that differ in epochs alone, how their means go."""
    lagging, again = ("Batch-norm statistics lag; ", "re-estimated ") if metric == RECAL else ("", "")
    final = RECAL if lagging else "final_val_acc"
    along = groups_along([c for c in (best, *(p.second for p in pairs)) if c.values(final)], "epochs")
    if len(along) == 1 and len(along[0]) == len(pairs) + 1:
        few, *_, most = along[0]
        ends = f"{few.setting('epochs')} to {most.setting('epochs')} epochs"
        means = f"the mean {again}final validation accuracy goes from {few.mean(final):.4f} to {most.mean(final):.4f}"
        shown = is_shown(compare_with_best(most, [few], final)[0])  # chosen by epochs: no correction
        seen = "" if shown else f" (n = {min(few.n, most.n)}: not shown to differ)"
        return f"{lagging}{'from' if lagging else 'From'} {ends} {means}{seen}"
    lower, mean = sum(map(is_shown, pairs)), f"{best.mean(metric):.4f}"
    among = f"{len(pairs) + 1} {again}configurations"
    if not pairs:
        return f"{lagging}{best.label} is the only {again}configuration: {mean}"
    if lower == len(pairs):
        return f"{lagging}{best.label} is the best of {among}: {mean}"
    if lower:
        return f"{lagging}{best.label} is the highest of {among}: {mean}; {lower} of them shown to be lower"
    none = "none" if lagging else "None"
    return f"{lagging}{none} of {among} is shown to be the best; {best.label} is the highest: {mean}"


def accuracy_sentence(best: Configuration, metric: str, thresholds: Sequence[str]) -> str:
    """Mean, sd, n and interval of the best, and at which epoch its mean over seeds reaches the first threshold."""
    kind, usual = ("best", "") if metric == "best_val_acc" else ("re-estimated final", "as usually computed, ")
    found = best.interval(metric)
    text = f"{kind} validation accuracy {mean_sd(found, best.n, 4)} (n = {best.n}"
    if found is not None and found.low is not None:
        text += f", 95 % interval {found.low:.4f} to {found.high:.4f}"
    if not thresholds:
        return f"{best.label}: {text})."
    epoch = best.crossing(thresholds[0])
    reached = f"does not reach {thresholds[0]}" if epoch is None else f"reaches {thresholds[0]} at epoch {epoch:g}"
    return f"{best.label}: {text}); {usual}the mean over seeds {reached}."


def undecided(best: Configuration, pairs: Sequence[Comparison]) -> Iterator[str]:
    """What is not shown to be lower than the best, and how many further seeds might show it: least and most."""
    found = [pair for pair in pairs if not is_shown(pair)]
    short = short_labels((best, *(pair.second for pair in pairs)), MOST_CHARACTERS)
    names = [short[pair.second.key] for pair in found]
    if names:
        more = f"; {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        yield f"Not shown to be lower: {'; '.join(names[:MOST_NAMED])}{more}."
    far = [(short[p.second.key], p.seeds - min(p.counts)) for p in (*found[:1], *found[1:][-1:]) if p.seeds is not None]
    further = "; ".join(f"{'more than 10,000' if n == math.inf else f'{n:,.0f}'} from {name}" for name, n in far)
    if singles := sum(c.n == 1 for c in (best, *(pair.second for pair in pairs))):
        of = f" in {singles} of {len(pairs) + 1} configurations" if pairs else ""
        yield f"n = 1{of}: nothing can be told about the spread; repeat with seeds=5."
    elif further:
        yield f"Further seeds of each that would tell it apart, if the differences are as large as here: {further}."


def command(configuration: Configuration) -> str:
    """A shell command that trains the configuration with the same seeds; "" where no manifest tells its settings."""
    if configuration.identity is None:
        return ""
    config = configuration.runs[0].manifest.get("config", {})
    given = {**configuration.identity, **({"init": config["init"]} if config.get("init") else {})}  # not its digest
    settings = [f"{ELSEWHERE.get(key, key)}={override(value)}" for key, value in given.items()]
    for part, key in (("data", "flip"), ("model", "bn_momentum")):  # which data=digits, mnist ... set otherwise
        missing = f"{part}.{key}" not in configuration.identity and key in config.get(part, {})
        if missing and not str(configuration.identity.get("data")).startswith("cifar"):
            settings.append(f"{part}.{key}={override(config[part][key])}")
    own = config.get("data", {}) if "data.digest" in given else {}  # images of the user's own
    places = [f"data.{k}={override(own[k])}" for k in ("root", "skip_broken", "function", "parameters") if own.get(k)]
    if places:
        settings = [*places, *(s for s in settings if not s.startswith("data.digest="))]
    seeds = sorted({run.seed for run in configuration.runs})
    if seeds == list(range(len(seeds))):
        settings += [f"seeds={len(seeds)}"] if len(seeds) > 1 else []
    else:
        settings = ["-m"] * (len(seeds) > 1) + settings + [f"seed={','.join(map(str, seeds))}"]
    return f"{TRAIN_COMMAND} {shlex.join(settings)}"


def override(value: Any) -> str:
    """A setting as the command line takes it; a float in full."""
    if value is None or isinstance(value, bool | list | dict):
        return re.sub(r'"(\w+)":', r"\1:", json.dumps(value, separators=(",", ":")))
    return str(value) if re.fullmatch(r"[\w./:+-]*", str(value), re.A) else "'" + str(value).replace("'", r"\'") + "'"


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
