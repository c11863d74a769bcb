"""The pictures of a search, from what its storage holds.

Not Optuna's own: they are experimental, warn about it, and cut off their labels.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna import Study
from optuna.importance import get_param_importances
from optuna.trial import FrozenTrial, TrialState

from resnetlab.runs.files import write_atomically
from resnetlab.sweeps.search.plan import SearchPlan
from resnetlab.sweeps.search.slices import draw_map, draw_slices

COMPLETE, PRUNED = "tab:blue", "tab:orange"


def draw(plan: SearchPlan, study: Study) -> list[Path]:
    """Draws what there is enough for, and returns the files."""
    trials = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    name, kinds = plan.config.objective, plan.space.distributions
    pictures: dict[str, Callable[[], Figure | None]] = {
        "history.png": lambda: history(trials, name),
        "epochs.png": lambda: epochs(trials),
        "importances.png": lambda: importances(study, complete, name),
        "slices.png": lambda: draw_slices(trials, kinds, name),
        "map.png": lambda: draw_map(trials, kinds, name),
    }
    written = []
    for file, picture in pictures.items():
        if (figure := picture()) is not None:
            write(figure, plan.folder / file)
            written.append(plan.folder / file)
    return written


def write(figure: Figure, path: Path) -> None:
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=110))


def history(trials: Sequence[FrozenTrial], name: str) -> Figure:
    """The objective of every trial, and the best so far."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED and trial.intermediate_values]
    axes.plot([t.number for t in complete], [t.value or 0.0 for t in complete], "o", color=COMPLETE, label="complete")
    if pruned:
        last = [trial.intermediate_values[max(trial.intermediate_values)] for trial in pruned]
        axes.plot([t.number for t in pruned], last, "v", color=PRUNED, mfc="none", label="pruned (its last val_acc)")
    best = [max(t.value or 0.0 for t in complete[: i + 1]) for i in range(len(complete))]
    numbers = [t.number for t in complete]
    axes.step([*numbers, trials[-1].number], [*best, best[-1]], where="post", color="black", lw=1, label="best so far")
    axes.set(xlabel="trial", ylabel=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def epochs(trials: Sequence[FrozenTrial]) -> Figure | None:
    """val_acc over the epochs: where the pruner has stopped what."""
    shown = [trial for trial in trials if trial.intermediate_values]
    if not shown:
        return None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for trial in sorted(shown, key=lambda trial: trial.state == TrialState.PRUNED):
        steps, values = zip(*sorted(trial.intermediate_values.items()), strict=True)
        if trial.state == TrialState.PRUNED:
            axes.plot(steps, values, color=PRUNED, lw=1)
            axes.plot(steps[-1:], values[-1:], "v", color=PRUNED, mfc="none")
        else:
            axes.plot(steps, values, color=COMPLETE, lw=1, alpha=0.7, marker="." if len(steps) == 1 else None)
    for color, state, marker in ((COMPLETE, TrialState.COMPLETE, None), (PRUNED, TrialState.PRUNED, "v")):
        if count := sum(trial.state == state for trial in shown):
            axes.plot([], [], color=color, marker=marker, mfc="none", label=f"{state.name.lower()}: {count}")
    axes.set(xlabel="epoch", ylabel="val_acc")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def importances(study: Study, complete: Sequence[FrozenTrial], name: str) -> Figure | None:
    """PED-ANOVA's share of each key in what sets the best trials apart; needs trials that differ."""
    if len({trial.value for trial in complete}) < 2 or len(study.best_trial.params) < 2:
        return None
    shares = get_param_importances(study)
    figure = Figure(figsize=(8, 1.2 + 0.45 * len(shares)), layout="constrained")
    axes = figure.subplots()
    keys = list(reversed(shares))
    bars = axes.barh(keys, [shares[key] for key in keys], color=COMPLETE, height=0.6)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set(xlabel=f"importance for {name} (PED-ANOVA, {len(complete)} complete trials)", xlim=(0, 1.1))
    return figure
