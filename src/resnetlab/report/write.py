"""Write the files of a report: the page, the tables, the plots."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path

from resnetlab.report.answer_plots import answer_plots
from resnetlab.report.columns import ReferenceValues
from resnetlab.report.compare import compare
from resnetlab.report.groups import Collection, Configuration, Key, best_first, groups_along
from resnetlab.report.headlines import answers
from resnetlab.report.page import Origin, Section, StudyPlots, page
from resnetlab.report.plots import Plot, plot_curves, plot_lengths, write_plot
from resnetlab.report.table import pairs_csv, table_csv, table_md
from resnetlab.runs.files import write_text

# plots one study, given also the thresholds; where it cannot, a sentence that says why
PlotStudy = Callable[[Sequence[Configuration], Sequence[str]], Plot | str]

MOST_CURVES = 12  # each takes half a second, and a page with more of them is not looked at


def write_report(
    collection: Collection,
    out: Path,
    references: Mapping[Key, ReferenceValues] | None = None,
    origins: Mapping[Key, Origin] | None = None,
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
    remove_old_plots(
        out / "figures", {plot.stem for study in studies for plot in (*study.opening, *study.added, *study.curves)}
    )
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
            name = re.sub(r"[/\x00-\x1f]", "_", f"{c.study}, {c.label}, seed {run.seed}")
            link = folder / name.encode()[:200].decode(errors="ignore")
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
    best = best_first(collection.configurations)[:MOST_CURVES]
    found_answers = {answer.study: answer for answer in answers(collection)}
    for place, (study, configurations) in enumerate(collection.studies.items(), 1):
        prefix = f"{place:02d}-{re.sub(r'[^A-Za-z0-9._-]+', '-', study)[:60] or 'study'}"
        found = StudyPlots(study, found_answers.get(study))
        if found.answer:
            ranked = [*found.answer.ranked, *(c for c in configurations if c not in found.answer.ranked)]
            found.opening += [write_plot(plot, folder, prefix) for plot in answer_plots(ranked, collection.thresholds)]
        if groups := groups_along(configurations, "epochs"):
            found.opening.append(write_plot(plot_lengths("lengths", groups, collection.thresholds), folder, prefix))
        for plot in (draw(configurations, collection.thresholds) for draw in plots):
            if isinstance(plot, str):
                found.absent.append(plot)
            else:
                found.added.append(write_plot(plot, folder, prefix))
        drawn = [c for c in best if c.study == study]
        for number, c in enumerate(drawn, 1):
            plot = plot_curves(f"curves-{number:02d}", c, collection.thresholds)
            found.curves.append(write_plot(plot, folder, prefix))
        if others := len(configurations) - len(drawn):
            found.absent.append(
                f"Curves of {others} of {len(configurations)} configurations: a report draws the {MOST_CURVES} with "
                "the best validation accuracy. Name fewer folders for the others, or see each run's curves.png."
            )
        yield found
