"""`resnetlab status`: a table of all runs, live on a terminal, once and plain elsewhere."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from resnetlab.console import Console, age, duration, on_terminal, say
from resnetlab.report.groups import group_by_configuration, with_labels
from resnetlab.runs.load import Run, require_folders
from resnetlab.runs.state import RunState, RunStates, StateReader

REFRESH_SECONDS = 2.0
MOST_ROWS = 50  # without a terminal
MOST_REASONS = 5
STYLES = {"running": "green", "failed": "red", "damaged": "red", "interrupted": "yellow", "unfinished": "yellow"}


def status_command(folders: Sequence[Path], once: bool = False, everything: bool = False) -> None:
    """Print the table of all runs below the folders; on a terminal refresh it until Ctrl-C.

    once: print it once there too. everything: all rows, printed once. Raises ConfigError for what is no folder.
    """
    require_folders(folders)
    terminal = on_terminal()
    console = Console(highlight=False, force_terminal=terminal, color_system="auto" if terminal else None)
    reader = StateReader(folders, label_runs)
    found = reader.read(time.time())
    if not found.runs and not found.waiting:
        say(f"no runs below {', '.join(map(str, folders))}")
    elif once or everything or not terminal or console.is_dumb_terminal:
        rows = len(found.runs) if everything else MOST_ROWS
        console.print(render(found, rows, time.time()), soft_wrap=False)
    else:
        follow(reader, found, console)


def follow(reader: StateReader, found: RunStates, console: Console) -> None:
    """Refresh the table in its place until it is interrupted."""
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        spent = 0.0
        while True:
            live.update(fit_to_terminal(found, console), refresh=True)
            time.sleep(max(REFRESH_SECONDS, 4 * spent))  # the machine has runs to train
            began = time.monotonic()
            found = reader.read(time.time())
            spent = time.monotonic() - began


def fit_to_terminal(found: RunStates, console: Console) -> Group:
    """The table with as many rows as the terminal has lines for."""
    rows, now = min(len(found.runs), console.height), time.time()
    while True:
        group = render(found, rows, now)
        over = len(console.render_lines(group, console.options.update(height=None))) - (console.height - 1)
        if over <= 0 or rows == 0:
            return group
        rows = max(0, rows - over)


def render(found: RunStates, rows: int, now: float) -> Group:
    """Counts and time left, the first `rows` runs, how many more there are, and why some failed."""
    shown, hidden = found.runs[:rows], RunStates(found.runs[rows:])
    if len({run.study for run in found.runs}) > 1:
        shown = [replace(run, label=f"{run.study}: {run.label}") for run in shown]
    parts: list[Text | Table] = [Text(headline(found))]
    if shown:
        parts.append(table_of(shown, now))
    if hidden.runs:
        parts.append(Text(f"... and {len(hidden.runs)} more: {counts_text(hidden)}; --all prints every run"))
    reasons = [run for run in shown if run.reason]
    for run in reasons[:MOST_REASONS]:
        parts.append(Text(f"{run.state}: {run.label}, seed {run.seed}: {run.reason}"))
    if len(reasons) > MOST_REASONS:
        parts.append(Text(f"... and {len(reasons) - MOST_REASONS} more with a reason"))
    return Group(*parts)


def headline(found: RunStates) -> str:
    """For example "12 runs: 2 running, 10 finished; 3 not begun; time left 0:12:30"."""
    runs = "1 run" if len(found.runs) == 1 else f"{len(found.runs)} runs"
    parts = [f"{runs}: {counts_text(found)}" if found.runs else runs]
    parts += [f"{len(found.waiting)} not begun"] if found.waiting else []
    if any(run.state == "running" for run in found.runs):
        parts.append(f"time left {duration(found.left())}")
    parts += ["sorted by state, then best"] if found.counts().get("finished", 0) > 1 else []
    return "; ".join(parts)


def counts_text(found: RunStates) -> str:
    return ", ".join(f"{count} {state}" for state, count in found.counts().items())


def table_of(runs: Sequence[RunState], now: float) -> Table:
    """One row a run, its label folded where there is no room. The age is that of a run's last row."""
    grid = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    grid.add_column("configuration", overflow="fold", min_width=14)
    trained = any(run.state == "running" for run in runs)
    for heading in ("seed", "state", "epoch", "last", "best", "s/epoch", *(("left",) if trained else ()), "age"):
        grid.add_column(heading, justify="left" if heading == "state" else "right", no_wrap=True)
    for run in runs:
        grid.add_row(*map(Text, cells(run, trained, now)), style=STYLES.get(run.state))
    return grid


def cells(run: RunState, trained: bool, now: float) -> list[str]:
    seed = str(run.seed) if run.seed >= 0 else "?"
    epoch = f"{run.done}/{'?' if run.epochs is None else run.epochs}"
    accuracies = ["-" if value is None else f"{value:.4f}" for value in (run.last, run.best)]
    seconds = "-" if run.seconds is None else f"{run.seconds:.3g}" if run.seconds < 1000 else f"{run.seconds:.0f}"
    lefts = [duration(run.left) if run.state == "running" else ""] if trained else []
    changed = "-" if run.changed is None else age(now - run.changed)
    return [run.label, seed, run.state, epoch, *accuracies, seconds, *lefts, changed]


def label_runs(runs: Sequence[Run]) -> Mapping[Path, str]:
    """The report's labels; the folder's name where a configuration has no settings yet."""
    known = [run for run in runs if run.summary]
    found = {run.path: c.label for c in with_labels(group_by_configuration(known)) for run in c.runs}
    names = {(run.study, run.configuration): found[run.path] for run in known}
    return {run.path: names.get((run.study, run.configuration), run.configuration) for run in runs} | found
