"""report.html: one self-contained page, readable without JavaScript, on a phone and on paper."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from resnetlab.report.collect import Collection
from resnetlab.report.columns import NOTHING, SETTINGS, Column, ReferenceValues, cell, columns, number, setting_text
from resnetlab.report.compare import Comparison
from resnetlab.report.configurations import Configuration, Key
from resnetlab.report.statistics import spread
from resnetlab.report.table import count_text
from resnetlab.runs.load import Run

__all__ = ["MOST_PAIRS", "Drawn", "Origin", "Section", "StudyFigures", "StudyTable", "page"]

MOST_PAIRS = 150  # rows on the page; pairs.csv has them all
KINDS = {
    "diverged": "diverged",
    "unfinished": "in progress or interrupted",
    "unreadable": "cannot be read",
    "repeated": "there twice",
}


@dataclass(frozen=True)
class Drawn:
    """A picture's words, the SVG that was written of it, and its files' name without the ending."""

    title: str
    caption: str
    svg: str
    stem: str

    @property
    def address(self) -> str:
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg.encode()).decode()


@dataclass
class StudyFigures:
    """One study's pictures. absent: a sentence for each that cannot be drawn or was left out."""

    study: str
    arguments: list[Drawn] = field(default_factory=list)
    curves: list[Drawn] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Origin:
    """A published preset of which a configuration is a reduction. changes: "data.limit 5000, epochs 15"."""

    preset: str
    changes: str


@dataclass(frozen=True)
class StudyTable:
    """One study's configurations in a section's table, and sentences below it, of which the last is the conclusion."""

    study: str
    configurations: Sequence[Configuration]
    sentences: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A section that the caller adds behind the report's own tables.

    anchor: its address within the page. label: of its tables, for screen readers. intro: HTML, which is not escaped.
    """

    anchor: str
    link: str
    title: str
    label: str
    intro: str
    columns: Sequence[Column]
    tables: Sequence[StudyTable]


def page(
    collection: Collection,
    comparisons: Mapping[str, Sequence[Comparison]],
    figures: Sequence[StudyFigures],
    references: Mapping[Key, ReferenceValues] | None,
    origins: Mapping[Key, Origin],
    sections: Sequence[Section],
) -> str:
    """Renders the page. comparisons: by the figure that is compared; origins: of the configurations that have one."""
    environment = Environment(loader=PackageLoader("resnetlab.report", "."), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    shown = [c for c in columns(collection.thresholds) if any(k.values(c.figure) for k in collection.configurations)]
    varied = [key for key in SETTINGS if len({setting_text(c, key) for c in collection.configurations}) > 1]
    constant = [key for key in SETTINGS if key not in varied] if collection.configurations else []
    return environment.get_template("page.html").render(
        header=header(collection, origins),
        columns=shown,
        unmeasured=[c.heading for c in columns(collection.thresholds) if c not in shown],
        settings=[SETTINGS[key] for key in varied],
        constants=[
            f"{SETTINGS[key]} {setting_text(collection.configurations[0], key)}"
            for key in constant
            if setting_text(collection.configurations[0], key) != NOTHING
        ],
        rows=[row(c, shown, varied, references or {}, origins) for c in collection.configurations],
        published=references is not None,
        comparisons=[panel(figure, found) for figure, found in comparisons.items()],
        selected=[chosen for c in collection.configurations if (chosen := selection_row(c))],
        sections=[(section, [study_table(section, table) for table in section.tables]) for section in sections],
        studies=figures,
        unused=[(KINDS[kind], [u for u in collection.unused if u.kind == kind]) for kind in KINDS],
        remarks=[(run.path, remark) for run in collection.runs for remark in run.remarks],
    )


def header(collection: Collection, origins: Mapping[Key, Origin]) -> dict[str, Any]:
    """What was read and what it was made with."""
    runs = collection.runs
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "folders": [str(folder) for folder in collection.folders],
        "runs": len(runs),
        "configurations": len(collection.configurations),
        "studies": len(collection.studies),
        "unused": [(KINDS[kind], count) for kind, count in Counter(u.kind for u in collection.unused).items()],
        "singles": sum(c.n == 1 for c in collection.configurations),
        "subsets": sum(bool(c.reduced_data) for c in collection.configurations),
        "reductions": list(dict.fromkeys(origin.changes for origin in origins.values())),
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
    c: Configuration,
    shown: Sequence[Column],
    varied: Sequence[str],
    references: Mapping[Key, ReferenceValues],
    origins: Mapping[Key, Origin],
) -> dict[str, Any]:
    reference, origin = references.get(c.key), origins.get(c.key)
    return {
        "configuration": c,
        "count": count_text(c.n, c.asked),
        "published": reference.name if reference else None,
        "source": reference.source if reference else None,
        "origin": origin.preset if origin else None,
        "cells": [cell(c, column, reference) for column in shown],
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
    digits = None if c.figure.startswith("epoch_to_") else 4
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
        "count": count_text(c.n, c.asked),
        "cells": [
            *(cell(c, Column(name, "", "", 4), None) for name in ("best_val_acc", "final_val_acc")),
            *(cell(c, Column(name, "", "", 4), None) for name in ("best_test_acc", "final_test_acc")),
        ],
        "gains": [best_less_last, difference(c, "best_val_acc", "best_test_acc") or NOTHING],
    }


def study_table(section: Section, table: StudyTable) -> dict[str, Any]:
    lines = [
        {
            "configuration": c,
            "count": count_text(c.n, c.asked),
            "cells": [cell(c, column, None) for column in section.columns],
        }
        for c in table.configurations
    ]
    return {"study": table.study, "rows": lines, "sentences": table.sentences}


def difference(c: Configuration, first: str, second: str) -> str | None:
    """Mean ± sd of first - second within runs; None where no run has both."""
    found = spread(
        [run.figures[first] - run.figures[second] for run in c.runs if {first, second} <= run.figures.keys()]
    )
    if found is None:
        return None
    text = f"{found.mean:+.4f}" + ("" if found.sd is None else f" ± {found.sd:.2g}")
    return text if found.n == c.n else f"{text} (n = {found.n} of {c.n})"
