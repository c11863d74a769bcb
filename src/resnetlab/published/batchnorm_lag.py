"""Batch-norm lag: a section and a plot on why the validation loss fluctuates under strong weight decay.

There are two suspects: running batch-norm statistics that lag behind the weights (then the fluctuation is gone
with re-estimated statistics, and with group norm, which keeps none), or the loss surface (then it stays).
"""

import math
from collections.abc import Sequence

from resnetlab.published.preset_matching import UNSEEN
from resnetlab.report import plots
from resnetlab.report.columns import Column
from resnetlab.report.groups import Collection, Configuration, differing_keys
from resnetlab.report.page import Section
from resnetlab.report.plots import Configurations, Plot
from resnetlab.report.statistics import mean_interval
from resnetlab.runs.files import data_beside
from resnetlab.runs.summary import FLUCTUATION_EPOCHS

TEXTS = data_beside(__file__, "batchnorm_lag.toml")
LEAST_RATIO = 2.0  # the validation loss fluctuates by more than so many times what the training loss does
EXPLAINED = 0.5  # by the statistics, if less than this share of the fluctuation is left with re-estimated ones


def lag_section(collection: Collection) -> Section | None:
    """Section with a table and a conclusion for each study with such runs; None where there is none."""
    tables = []
    for study, configurations in collection.studies.items():
        if found := configurations_with_fluctuation(configurations):
            said, decided = findings(configurations)
            tables.append({"study": study, "configurations": found, "conclusion": said, "decided": decided})
    columns = [Column(*parts) for parts in TEXTS["columns"]]
    return {**TEXTS, "columns": columns, "tables": tables} if tables else None


def configurations_with_fluctuation(configurations: Configurations) -> list[Configuration]:
    """Configurations with enough epochs; none if the study has neither re-estimated statistics nor another norm."""
    if not any(c.values("fluctuation_recal") or norm(c) != "batch" for c in configurations):
        return []
    return [c for c in configurations if c.values("fluctuation_running")]


def plot_lag(configurations: Configurations, thresholds: Sequence[str]) -> Plot | str:
    """Plot validation loss with running and re-estimated statistics, weight norm and relative update by epoch."""
    drawn = configurations_with_fluctuation(configurations)[: plots.MOST_LINES]
    if not drawn:
        needed = f"runs of {FLUCTUATION_EPOCHS[0] + 4} epochs or more, and a schedule that is not stretched."
        return f"{TEXTS['title']}: needs recalibrate_bn=true or model.norm=group, {needed}"
    heights = {"validation ce": 2.8, "weight norm": 1.1, "relative update": 1.1}
    figure, (loss, weights, update) = plots.make_panels("epoch", heights)
    for c in drawn:
        color = plots.color_of(c)
        plots.draw_band(loss, c, "val/ce", color, c.label)
        plots.draw_band(loss, c, "val/ce_recal", color, None, "--")
        plots.draw_band(weights, c, "weight_norm", color, None)
        plots.draw_band(update, c, "relative_update", color, None)
    plots.log_scale(loss)
    plots.legend_above(figure, loss)
    caption = f"{TEXTS['caption']} {plots.seeds_note([drawn])}"
    return Plot(TEXTS["anchor"], TEXTS["title"], caption, figure)


def findings(configurations: Configurations) -> tuple[str, bool]:
    """(a conclusion on a study's batch-norm configurations, whether that decides anything)."""
    found = configurations_with_fluctuation(configurations)
    pairs = [c for c in found if norm(c) == "batch" and c.values("fluctuation_recal")]
    fluctuating = [c for c in pairs if c.mean("fluctuation_running") > LEAST_RATIO * c.mean("fluctuation_train")]
    if not pairs:
        return "No run here was validated with both kinds of statistics, so the cause cannot be told.", False
    if not fluctuating:
        return f"No validation loss fluctuates {LEAST_RATIO:g} times as much as training's: nothing to explain.", True
    return conclusion(fluctuating, [(c, control) for c in fluctuating if (control := control_of(c, found))])


def control_of(c: Configuration, found: Configurations) -> Configuration | None:
    """The configuration that differs in its norm alone; None where there is none."""
    return next((other for other in found if (differing_keys(c, other) or set()) - UNSEEN == {"model.norm"}), None)


def conclusion(fluctuating: Configurations, controls: Sequence[Configurations]) -> tuple[str, bool]:
    """(what re-estimating leaves, and a verdict; whether the share's 95 % interval over seeds allows one)."""
    shares = [c.mean("fluctuation_recal") / c.mean("fluctuation_running") for c in fluctuating]
    text = (
        f"In {len(fluctuating)} of these the validation loss fluctuates more than {LEAST_RATIO:g} times as much as the "
        f"training loss; re-estimating the statistics leaves {percent(shares)} of it"
    )
    if controls:
        left = [control.mean("fluctuation_running") / c.mean("fluctuation_running") for c, control in controls]
        text += f", norms without them {percent(left)}"
    verdicts = [is_explained(c) for c in fluctuating]
    ns = " and ".join(map(str, sorted({c.n for c in fluctuating})))
    if None in verdicts:
        return f"{text}. Cannot tell at n = {ns} whether the running statistics explain it; more seeds would.", False
    if not any(verdicts):
        return f"{text}. The running statistics do not explain it (n = {ns}).", True
    some = f" in {verdicts.count(True)} of {len(verdicts)}" if not all(verdicts) else ""
    return f"{text}. Most of it is the running statistics', not the loss surface's{some} (n = {ns}).", True


def is_explained(c: Configuration) -> bool | None:
    """Whether less than EXPLAINED of the fluctuation is left, tested on its logarithms; None: too few runs."""
    pairs = ((run.metrics.get("fluctuation_recal"), run.metrics.get("fluctuation_running")) for run in c.runs)
    found = mean_interval([math.log(max(again, 1e-12) / running) for again, running in pairs if again and running])
    if found is None or found.low is None or found.high is None:
        return None
    limit = math.log(EXPLAINED)
    return True if found.high < limit else False if found.low > limit else None


def percent(shares: Sequence[float]) -> str:
    low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return low if low == high else f"{low} to {high}"


def norm(configuration: Configuration) -> str:
    return str(configuration.setting("model.norm") or "batch")
