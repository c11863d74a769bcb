"""Writes docs/records.md: the fewest epochs to a mean accuracy, from the measured runs in records/*/.

    python scripts/write_records.py

A record is a folder with record.toml (target, title, command, which repeats it) and the runs, seed=*/, without their
checkpoints. A test compares the page with what this script would write.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import ttest_1samp

from resnetlab.published.results import Published, rows
from resnetlab.report.columns import mean_sd, number
from resnetlab.report.groups import Configuration, collect

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "records.md"
TARGETS = (0.92, 0.94)
PARAMETERS = 1_663_338  # trainable, of ResNet56v2 with ten classes
PUBLISHED = 3  # rows of the series shown for a target

HEAD = """# Records

The fewest epochs of a fixed network to a mean accuracy of 0.92 and of 0.94 on CIFAR-10, as far as they were measured.
`python scripts/write_records.py` makes this page from the runs in `records/`.

Rules:

- The network is ResNet56v2 with 1,663,338 trainable parameters, the batch 64, the training set all 50,000 images.
- All seeds stop at the same epoch, chosen beforehand. What counts is the mean of their *last* epochs, never the first
  epoch at which a single run touches the target. A mean below the target is no record.
- n is the number of seeds (?: not said); p tests that the mean is at most the target (one-sided t-test, from n = 2).
- The split says what was measured: *series* the official test images as the validation set, as in the published
  series; *test* an untouched test set. A split that has one trains on fewer images, so it stands with the reduced.
- No test-time augmentation. Wall-clock time and energy stand beside a record where they were measured.
- Only measured runs enter. Reduced ones (fewer layers, images or pixels) have a table and targets of their own.
- The series' own rows are record 0. They are what it printed: the first epoch of a single run, which flatters.

To enter one: train all seeds with one command, copy each run without `checkpoints/` to `records/<name>/seed=<n>/`,
write `records/<name>/record.toml` and run the script.
"""


@dataclass(frozen=True)
class Record:
    """One folder of records/."""

    folder: Path
    target: float
    title: str
    command: str
    configuration: Configuration

    @property
    def metric(self) -> str:
        return "final_test_acc" if self.configuration.values("final_test_acc") else "final_val_acc"

    @property
    def reduction(self) -> str:
        """What makes it a reduced one, "" for the fixed network on all images."""
        c, summary = self.configuration, self.configuration.runs[0].summary
        network = f"{summary['model']} of {summary['parameters']:,} parameters"
        other = summary["parameters"] != PARAMETERS or summary["batch_size"] != 64
        parts = [f"{network}, batch {summary['batch_size']}"] if other else []
        split = c.setting("data.split")  # None: official, which trains on all images
        return ", ".join([*parts, *filter(None, [c.reduced_data, split and f"data.split={split}"])])


def read_record(folder: Path) -> Record:
    """The record in a folder. Raises ValueError for one that breaks a rule."""
    fields = tomllib.loads((folder / "record.toml").read_text())
    collection = collect([folder])
    if len(collection.configurations) != 1 or collection.skipped:
        raise ValueError(f"{folder} must hold the finished runs of one configuration")
    record = Record(folder, configuration=collection.configurations[0], **fields)
    values, summaries = record.configuration.values(record.metric), [run.summary for run in record.configuration.runs]
    if any(summary["data"] != "cifar10" for summary in summaries):
        raise ValueError(f"{folder} must be of cifar10")
    if any(summary["epochs_trained"] != summary["epochs"] for summary in summaries):
        raise ValueError(f"{folder} must be trained for all of their epochs")
    if sum(values) / len(values) < record.target or len(values) != record.configuration.n:
        raise ValueError(f"{folder}: the mean {record.metric} of all seeds must reach {record.target}")
    check_target(record, record.reduction)
    return record


def check_target(record: Record, reduction: str) -> None:
    """Raises ValueError for a record of the fixed network with another target than the table's."""
    if not reduction and record.target not in TARGETS:
        raise ValueError(f"{record.folder}: target (={record.target:g}) must be one of {', '.join(map(str, TARGETS))}")


def line(record: Record) -> str:
    """A record's row of the table."""
    c = record.configuration
    values, minutes = c.values(record.metric), c.mean("seconds_per_epoch") * c.runs[0].summary["epochs"] / 60
    p = f", p = {ttest_1samp(values, record.target, alternative='greater').pvalue:.2g}" if len(values) > 1 else ""
    split = "test" if record.metric == "final_test_acc" else "series"
    energy = f", {c.mean('energy_wh'):.3g} Wh" if c.values("energy_wh") else ""
    recipe = "; ".join(filter(None, [record.title, record.reduction, f"`{record.folder.name}`"]))
    accuracy = f"{mean_sd(c.interval(record.metric), len(values), 4)} (n = {len(values)}{p})"
    cells = [f"{record.target:g}", c.runs[0].summary["epochs"], recipe, accuracy]
    return table_line([*cells, split, f"{number(minutes, 1)} minutes{energy}"])


def published_line(row: Published) -> str:
    """A published row; its epoch counted from 1."""
    recipe = f"{row.optimizer}, {row.schedule or 'schedule not said'}, {row.id}"
    found = row.val_acc_at_threshold if row.val_acc_at_threshold is not None else row.threshold
    cells = [f"{row.threshold:g}", f"{row.bound or ''}{row.epoch(row.epoch_at_threshold)}", recipe, f"{found:g}"]
    return table_line([*cells[:3], f"{cells[3]} (n = {row.n or '?'})", "series", "-"])


def fewest_published(target: float) -> list[Published]:
    """The series' rows with the fewest epochs to a target."""
    found = [row for row in rows() if row.model == "resnet56v2" and row.threshold == target and row.reached]
    return sorted(found, key=lambda row: row.epoch(row.epoch_at_threshold) or 0)[:PUBLISHED]


def table_line(cells: list[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def page() -> Iterator[str]:
    """The page's parts."""
    records = [read_record(path.parent) for path in sorted((ROOT / "records").glob("*/record.toml"))]
    records.sort(key=lambda record: (record.target, record.configuration.runs[0].summary["epochs"]))
    columns = ["target", "epochs", "recipe", "accuracy", "split", "cost of a run"]
    yield from (HEAD, "## The fixed network\n", table_line([*columns]), table_line(["---"] * len(columns)))
    for target in TARGETS:
        yield from (line(record) for record in records if not record.reduction and record.target == target)
        yield from map(published_line, fewest_published(target))
    reduced = [record for record in records if record.reduction]
    yield "\nThe rows named post... are the series' (record 0)." + (
        "" if len(reduced) < len(records) else " No run of ours has been entered yet."
    )
    yield "\n## Reduced\n"
    yield from (table_line([*columns]), table_line(["---"] * len(columns)), *map(line, reduced))
    yield "\n## Commands\n"
    yield from (f"{record.title}:\n\n```bash\n{record.command.strip()}\n```\n" for record in records)


def text() -> str:
    return "\n".join(page()).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(text())
