"""Writes the report's files: the page, the tables, the figures."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path

from resnetlab.report.collect import Collection
from resnetlab.report.columns import ReferenceValues
from resnetlab.report.compare import compare
from resnetlab.report.configurations import Configuration, Key
from resnetlab.report.figures import Picture, series_plot, side_by_side, write
from resnetlab.report.page import Drawn, Origin, Section, StudyFigures, page
from resnetlab.report.table import pairs_csv, table_csv, table_md
from resnetlab.runs.files import write_text

__all__ = ["PlotStudy", "write_report"]

# plots one study, given also the thresholds; where it cannot, a sentence that says why
PlotStudy = Callable[[Sequence[Configuration], Sequence[str]], Picture | str]

MOST_CURVES = 12  # each takes half a second, and a page with more of them is not looked at
MOST_OVERLAID = 8


def write_report(
    collection: Collection,
    out: Path,
    references: Mapping[Key, ReferenceValues] | None = None,
    origins: Mapping[Key, Origin] | None = None,
    sections: Sequence[Section] = (),
    plots: Sequence[PlotStudy] = (),
) -> list[Path]:
    """Writes report.html, table.csv, table.md, pairs.csv and figures/*.png|svg below `out`; returns the first four.

    references: published values by the configuration's key, None leaves their columns out; origins: what reduced
    configurations are reductions of. sections and plots are added to the report's own, plots to every study.
    """
    comparisons = {figure: compare(collection.configurations, figure) for figure in compared(collection.thresholds)}
    figures = list(study_figures(collection, out / "figures", plots))
    tidy(out / "figures", {picture.stem for study in figures for picture in (*study.arguments, *study.curves)})
    files = {
        "report.html": page(collection, comparisons, figures, references, origins or {}, sections),
        "table.csv": table_csv(collection, references),
        "table.md": table_md(collection, references),
        "pairs.csv": pairs_csv([comparison for found in comparisons.values() for comparison in found]),
    }
    for name, text in files.items():
        write_text(out / name, text)
    return [out / name for name in files]


def compared(thresholds: Sequence[str]) -> list[str]:
    """The figures of the pairwise comparison."""
    return ["best_val_acc", "final_val_acc", *(f"epoch_to_{name}" for name in thresholds[:1])]


def tidy(folder: Path, stems: Set[str]) -> None:
    """Removes the pictures of an earlier report that this one has not, so that none is taken for one of this report.

    Only what a report wrote, which is listed in .pictures beside it.
    """
    listed = folder.parent / ".pictures"
    earlier = set(listed.read_text().split("\n")) if listed.is_file() else set()
    for stem in earlier - stems - {""}:
        for suffix in (".png", ".svg"):
            (folder / f"{stem}{suffix}").unlink(missing_ok=True)
    write_text(listed, "\n".join(sorted(stems)))


def study_figures(collection: Collection, folder: Path, plots: Sequence[PlotStudy]) -> Iterator[StudyFigures]:
    """Draws and writes everything, study by study."""
    favoured = set(favourites(collection.configurations))
    for place, (study, configurations) in enumerate(collection.studies.items(), 1):
        stem = f"{place:02d}-{slug(study)}"
        found = StudyFigures(study)
        for picture in (plot(configurations, collection.thresholds) for plot in plots):
            if isinstance(picture, str):
                found.absent.append(picture)
            else:
                found.arguments.append(drawn(picture, stem, folder))
        mine = sorted((c for c in configurations if id(c) in favoured), key=strength)
        if len(mine) > 1:
            overlay = side_by_side("side-by-side", mine[:MOST_OVERLAID], collection.thresholds)
            found.curves.append(drawn(overlay, stem, folder))
        for number, configuration in enumerate(mine, 1):
            picture = series_plot(f"curves-{number:02d}", configuration, collection.thresholds)
            found.curves.append(drawn(picture, stem, folder))
        found.absent += left_out(len(mine), len(configurations))
        yield found


def left_out(drawn_: int, configurations: int) -> Iterator[str]:
    """Says whose curves are not there."""
    if drawn_ < configurations:
        yield (
            f"Curves of {configurations - drawn_} of {configurations} configurations: a report draws the "
            f"{MOST_CURVES} with the best validation accuracy. "
            "Name fewer folders for the others, or see each run's curves.png."
        )


def favourites(configurations: Sequence[Configuration]) -> list[int]:
    return [id(c) for c in sorted(configurations, key=strength)[:MOST_CURVES]]


def strength(configuration: Configuration) -> float:
    found = configuration.spread("best_val_acc")
    return 0.0 if found is None else -found.mean


def drawn(picture: Picture, stem: str, folder: Path) -> Drawn:
    named = Picture(f"{stem}-{picture.stem}", picture.title, picture.caption, picture.figure)
    return Drawn(named.title, named.caption, write(named, folder), named.stem)


def slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:60] or "study"
