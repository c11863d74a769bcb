"""report.html: one self-contained page, readable without JavaScript, on a phone and on paper."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from resnetlab.report.columns import NOTHING, SETTINGS, Column, PublishedFigures, cell, columns, number, setting_text
from resnetlab.report.compare import Comparison
from resnetlab.report.groups import Collection, Configuration, Key
from resnetlab.report.printed import origin, reductions
from resnetlab.report.riddle import COLUMNS as RIDDLE_COLUMNS
from resnetlab.report.riddle import answer, participants
from resnetlab.report.statistics import mean_interval
from resnetlab.report.table import count_text
from resnetlab.runs.load import Run

MOST_PAIRS = 150  # rows on the page; pairs.csv has them all
KINDS = {
    "diverged": "diverged",
    "unfinished": "in progress or interrupted",
    "unreadable": "cannot be read",
    "repeated": "there twice",
}


@dataclass(frozen=True)
class WrittenPlot:
    """A picture's words, the SVG that was written of it, and its files' name without the ending."""

    title: str
    caption: str
    svg: str
    stem: str

    @property
    def address(self) -> str:
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg.encode()).decode()


@dataclass
class StudyPlots:
    """One study's pictures. absent: a sentence for each that cannot be drawn or was left out."""

    study: str
    arguments: list[WrittenPlot] = field(default_factory=list)
    curves: list[WrittenPlot] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)


def page(
    collection: Collection,
    comparisons: Mapping[str, Sequence[Comparison]],
    figures: Sequence[StudyPlots],
    published: Mapping[Key, PublishedFigures] | None,
) -> str:
    """The page's text. comparisons: by the figure that is compared."""
    environment = Environment(loader=PackageLoader("resnetlab.report", "."), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    shown = [c for c in columns(collection.thresholds) if any(k.values(c.metric) for k in collection.configurations)]
    varied = [key for key in SETTINGS if len({setting_text(c, key) for c in collection.configurations}) > 1]
    constant = [key for key in SETTINGS if key not in varied] if collection.configurations else []
    return environment.get_template("page.html").render(
        header=header(collection),
        columns=shown,
        unmeasured=[c.heading for c in columns(collection.thresholds) if c not in shown],
        settings=[SETTINGS[key] for key in varied],
        constants=[
            f"{SETTINGS[key]} {setting_text(collection.configurations[0], key)}"
            for key in constant
            if setting_text(collection.configurations[0], key) != NOTHING
        ],
        rows=[row(c, shown, varied, published or {}) for c in collection.configurations],
        published=published is not None,
        comparisons=[panel(figure, found) for figure, found in comparisons.items()],
        selected=[chosen for c in collection.configurations if (chosen := selection_row(c))],
        riddles=[found for name, cs in collection.studies.items() if (found := riddle_table(name, cs))],
        riddle_columns=RIDDLE_COLUMNS,
        studies=figures,
        unused=[(KINDS[kind], [u for u in collection.skipped if u.kind == kind]) for kind in KINDS],
        remarks=[(run.path, remark) for run in collection.runs for remark in run.remarks],
    )


def header(collection: Collection) -> dict[str, Any]:
    """What was read and what it was made with."""
    runs = collection.runs
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "folders": [str(folder) for folder in collection.folders],
        "runs": len(runs),
        "configurations": len(collection.configurations),
        "studies": len(collection.studies),
        "unused": [(KINDS[kind], count) for kind, count in Counter(u.kind for u in collection.skipped).items()],
        "singles": sum(c.n == 1 for c in collection.configurations),
        "subsets": sum(bool(c.reduced_data) for c in collection.configurations),
        "reductions": reductions(collection.configurations),
        "commits": counted(runs, commit),
        "machines": counted(runs, machine),
    }


def counted(runs: Sequence[Run], describe: Any) -> list[tuple[str, int]]:
    return Counter(describe(run.manifest) for run in runs).most_common()


def commit(manifest: Mapping[str, Any]) -> str:
    git = manifest.get("git")
    if not isinstance(git, dict) or not git.get("sha"):
        return "unknown commit"
    return str(git["sha"])[:12] + (" with uncommitted changes" if git.get("dirty") else "")


def machine(manifest: Mapping[str, Any]) -> str:
    if not manifest.get("device"):
        return "unknown machine"
    parts = [f"{manifest['device']}", f"{manifest.get('threads')} threads", f"{manifest.get('precision')}"]
    versions = manifest.get("versions")
    torch = versions.get("torch") if isinstance(versions, dict) else None
    return ", ".join([*parts, *([f"torch {torch}"] if torch else [])]).replace("1 threads", "1 thread")


def row(
    c: Configuration, shown: Sequence[Column], varied: Sequence[str], published: Mapping[Key, PublishedFigures]
) -> dict[str, Any]:
    printed = published.get(c.key)
    return {
        "configuration": c,
        "count": count_text(c.n, c.planned),
        "published": printed.name if printed else None,
        "source": printed.row.source if printed and printed.row else None,
        "origin": origin(c),
        "cells": [cell(c, column, printed) for column in shown],
        "settings": [(setting_text(c, key), c.setting(key)) for key in varied],
    }


def panel(figure: str, found: Sequence[Comparison]) -> dict[str, Any]:
    """One figure's table of pairs."""
    return {
        "figure": figure,
        "pairs": [pair_row(c) for c in found[:MOST_PAIRS]],
        "all": len(found),
        "tested": sum(c.p is not None for c in found),
        "shown": sum(c.verdict.endswith("is higher") for c in found),
    }


def pair_row(c: Comparison) -> dict[str, Any]:
    digits = None if c.metric.startswith("epoch_to_") else 4
    first, second = c.sides
    return {
        "study": c.first.study,
        "names": f"{c.first.name} against {c.second.name}",
        "both": ", ".join(part for part in c.first.label.split(", ") if part in c.second.label.split(", ")) or NOTHING,
        "change": f"{c.key}: {first} against {second}",
        "n": f"{c.counts[0]} and {c.counts[1]}",
        "difference": ("+" if c.difference > 0 else "") + number(c.difference, digits),
        "ps": [f"{p:.3g}" if p is not None else NOTHING for p in (c.welch_p, c.permutation_p, c.adjusted)],
        "verdict": c.verdict,
    }


def selection_row(c: Configuration) -> dict[str, Any] | None:
    """Best epoch on validation, last epoch, test: as differences within each run, so that the runs' scatter cancels."""
    best_less_last = difference(c, "best_val_acc", "final_val_acc")
    if best_less_last is None:
        return None
    return {
        "configuration": c,
        "count": count_text(c.n, c.planned),
        "cells": [
            *(cell(c, Column(name, "", "", 4), None) for name in ("best_val_acc", "final_val_acc")),
            *(cell(c, Column(name, "", "", 4), None) for name in ("best_test_acc", "final_test_acc")),
        ],
        "gains": [best_less_last, difference(c, "best_val_acc", "best_test_acc") or NOTHING],
    }


def riddle_table(study: str, configurations: Sequence[Configuration]) -> dict[str, Any] | None:
    """The study's part in the riddle of the swinging validation loss; None where it has none."""
    found = participants(configurations)
    rows_ = [{"configuration": c, "count": count_text(c.n, c.planned), "cells": riddle_cells(c)} for c in found]
    return {"study": study, "rows": rows_, "answer": list(answer(configurations))} if rows_ else None


def riddle_cells(c: Configuration) -> list[Any]:
    return [cell(c, column, None) for column in RIDDLE_COLUMNS]


def difference(c: Configuration, first: str, second: str) -> str | None:
    """Mean ± sd of first - second within runs; None where no run has both."""
    found = mean_interval(
        [run.metrics[first] - run.metrics[second] for run in c.runs if {first, second} <= run.metrics.keys()]
    )
    if found is None:
        return None
    text = f"{found.mean:+.4f}" + ("" if found.sd is None else f" ± {found.sd:.2g}")
    return text if found.n == c.n else f"{text} (n = {found.n} of {c.n})"
