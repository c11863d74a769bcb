"""report.html: one self-contained page that also works without JavaScript, on a phone and on paper."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from resnetlab.report.columns import SETTINGS, Column, ReferenceValues, cell, columns, measured_columns, number
from resnetlab.report.compare import Comparison, is_shown
from resnetlab.report.groups import NOTHING, Collection, Key
from resnetlab.report.headlines import Headline, described, lag_line
from resnetlab.report.plots import Plot
from resnetlab.report.table import FIRST, count_text

AT_THRESHOLD = ("val_acc_at_", "train_acc_at_")  # in which the series tabulates its runs
MOST_COLUMNS = 8  # in view, that of the configuration included
MOST_PAIRS = 150  # rows on the page; pairs.csv has them all
SELECTION = ("best_val_acc", "final_val_acc", "best_test_acc", "final_test_acc", "best_minus_final", "best_minus_test")
KINDS = ("diverged", "unfinished", "unreadable", "repeated")  # of skipped runs


class StudyPlots(NamedTuple):
    """One study's plots. added: the caller's. absent: a sentence for each that cannot be drawn or was left out."""

    study: str
    headline: Headline | None
    opening: Sequence[Plot]
    added: Sequence[Plot]
    curves: Sequence[Plot]
    absent: Sequence[str]


# behind the report's own tables: texts as in published/batchnorm_lag.toml, columns, and tables, one a study: its name,
# its configurations, what is concluded from them, and whether that can be decided
Section = Mapping[str, Any]


def page(
    collection: Collection,
    comparisons: Mapping[str, Sequence[Comparison]],
    plots: Sequence[StudyPlots],
    references: Mapping[Key, ReferenceValues] | None,
    origins: Mapping[Key, tuple[str, str]],
    sections: Sequence[Section],
) -> str:
    """Render the page. comparisons: by metric; origins: (published preset, what of it is reduced) of reductions."""
    environment = Environment(loader=PackageLoader("resnetlab.report", "."), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.tests["shown"] = is_shown
    related = bool(references or origins)  # to published configurations
    measured, runs = measured_columns(collection), collection.runs
    listed = [c for c in measured if related or not c.metric.startswith(AT_THRESHOLD)]
    listed.sort(key=lambda column: column.metric not in FIRST)  # keeps their order
    room = MOST_COLUMNS - 2 - (collection.thresholds != []) - (len(collection.studies) > 1)
    varied = [key for key in SETTINGS if len({c.setting_text(key) for c in collection.configurations}) > 1]
    fixed = [(key, c.setting_text(key)) for c in collection.configurations[:1] for key in SETTINGS if key not in varied]
    return environment.get_template("page.html").render(
        **{"cell_of": cell, "count_text": count_text, "described": described},
        **{"number": number, "most_pairs": MOST_PAIRS, "nothing": NOTHING},
        selection=[Column(name, "", "", 4) for name in SELECTION],
        **{"collection": collection, "references": references or {}, "origins": origins, "comparisons": comparisons},
        **{"sections": sections, "studies": plots, "lag": lag_line(collection)},
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commits=Counter(commit(run.manifest) for run in runs).most_common(),
        machines=Counter(machine(run.manifest) for run in runs).most_common(),
        reductions=list(dict.fromkeys(changes for _, changes in origins.values())),
        shown=listed[:room],
        more=listed[room:],
        first=next(iter(collection.thresholds), None),
        unmeasured=[c.heading for c in columns(collection.thresholds) if c not in measured],
        settings={key: SETTINGS[key] for key in varied},
        constants=[f"{SETTINGS[key]} {text}" for key, text in fixed if text != NOTHING],
        series_studies={study for study, *_ in (*(references or {}), *origins)},
        skipped={kind: [run for run in collection.skipped if run.kind == kind] for kind in KINDS},
        remarks=[(run.path, remark) for run in runs for remark in run.remarks],
    )


def commit(manifest: Mapping[str, Any]) -> str:
    git = manifest.get("git")
    if not isinstance(git, dict) or not git.get("sha"):
        return "unknown commit"
    return str(git["sha"])[:12] + (" with uncommitted changes" if git.get("dirty") else "")


def machine(manifest: Mapping[str, Any]) -> str:
    if not manifest.get("device"):
        return "unknown machine"
    threads, versions = manifest.get("threads"), manifest.get("versions")
    parts = [str(manifest["device"]), f"{threads} thread{'' if threads == 1 else 's'}", str(manifest.get("precision"))]
    if isinstance(versions, dict) and versions.get("torch"):
        parts.append(f"torch {versions['torch']}")
    return ", ".join(parts)
