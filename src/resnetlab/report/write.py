"""Write the files of a report: the page, the tables, the plots."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path

from resnetlab.report.columns import ReferenceValues
from resnetlab.report.compare import compare
from resnetlab.report.groups import Collection, Configuration, Key, best_first
from resnetlab.report.headline_plots import headline_plots
from resnetlab.report.headlines import headlines
from resnetlab.report.page import Section, StudyPlots, page
from resnetlab.report.plots import Plot, plot_curves, write_plot
from resnetlab.report.table import pairs_csv, table_csv, table_md
from resnetlab.runs.files import write_text

# plots one study, given also the thresholds; where it cannot, a sentence that says why
PlotStudy = Callable[[Sequence[Configuration], Sequence[str]], Plot | str]

MOST_CURVES = 12  # each takes half a second, and a page with more of them is not looked at


def write_report(
    collection: Collection,
    out: Path,
    references: Mapping[Key, ReferenceValues] | None = None,
    origins: Mapping[Key, tuple[str, str]] | None = None,
    sections: Sequence[Section] = (),
    plots: Sequence[PlotStudy] = (),
) -> list[Path]:
    """Write report.html, table.csv, table.md, pairs.csv, figures/*.png|svg, tensorboard/* below `out`; returns four.

    references: published values by the configuration's key, None leaves their columns out; origins: what reduced
    configurations are reductions of. sections and plots are added to the report's own, plots to every study.
    """
    metrics = ["best_val_acc", "final_val_acc", *(f"epoch_to_{name}" for name in collection.thresholds[:1])]
    comparisons = {metric: compare(collection.configurations, metric) for metric in metrics}
    studies = list(write_plots(collection, out / "figures", plots))
    written = {plot.stem for study in studies for plot in (*study.opening, *study.added, *study.curves)}
    remove_old_plots(out / "figures", written)
    files = {
        "report.html": page(collection, comparisons, studies, references, origins or {}, sections),
        "table.csv": table_csv(collection, references),
        "table.md": table_md(collection, references),
        "pairs.csv": pairs_csv([comparison for found in comparisons.values() for comparison in found]),
    }
    for name, text in files.items():
        write_text(out / name, text)
    link_runs(collection, out / "tensorboard")
    return [out / name for name in files]


def link_runs(collection: Collection, folder: Path) -> None:
    """Link every run under the report's short name of it, for `tensorboard --logdir`; replaces earlier links."""
    folder.mkdir(exist_ok=True)
    for link in filter(Path.is_symlink, folder.iterdir()):
        link.unlink()
    for c in collection.configurations:
        for run in c.runs:
            name = re.sub(r"[/\x00-\x1f]", "_", f"{c.study}, {c.label}").encode()[:200].decode(errors="ignore")
            link = folder / f"{name}, seed {run.seed}"
            if not os.path.lexists(link):
                link.symlink_to(os.path.relpath(run.path.resolve(), folder.resolve()))


def remove_old_plots(folder: Path, stems: Set[str]) -> None:
    """Remove the plots of an earlier report that this one has not, so that none is taken for one of this report.

    Only those that a report wrote, which are listed in .pictures beside the folder.
    """
    listed = folder.parent / ".pictures"
    earlier = set(listed.read_text().split("\n")) if listed.is_file() else set()
    for stem in earlier - stems - {""}:
        for suffix in (".png", ".svg"):
            (folder / f"{stem}{suffix}").unlink(missing_ok=True)
    write_text(listed, "\n".join(sorted(stems)))


def write_plots(collection: Collection, folder: Path, plots: Sequence[PlotStudy]) -> Iterator[StudyPlots]:
    """Draw and write all plots, study by study."""
    best, thresholds = best_first(collection.configurations)[:MOST_CURVES], collection.thresholds
    known = {headline.study: headline for headline in headlines(collection)}
    for place, (study, configurations) in enumerate(collection.studies.items(), 1):
        prefix = f"{place:02d}-{re.sub(r'[^A-Za-z0-9._-]+', '-', study)[:60] or 'study'}"
        chosen = [c for c in best if c.study == study]
        opening = headline_plots(known[study].ranked, thresholds) if study in known else ()
        added = [draw(configurations, thresholds) for draw in plots]
        curves = (plot_curves(f"curves-{number:02d}", c, thresholds) for number, c in enumerate(chosen, 1))
        absent = [plot for plot in added if isinstance(plot, str)]
        if others := len(configurations) - len(chosen):
            where = "name fewer folders for the others, or see each run's curves.png."
            absent.append(f"Curves of {others} configurations: the best {MOST_CURVES} are drawn; {where}")
        kinds = (opening, added, curves)
        drawn = [[write_plot(plot, folder, prefix) for plot in kind if isinstance(plot, Plot)] for kind in kinds]
        yield StudyPlots(study, known.get(study), drawn[0], drawn[1], drawn[2], absent)
