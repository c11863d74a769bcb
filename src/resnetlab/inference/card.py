"""What an exported network is: model.json, and a model card with the front matter of model hubs."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import torch
from jinja2 import Template

from resnetlab.inference.load_model import Classifier
from resnetlab.report.statistics import mean_interval
from resnetlab.runs.load import UnusableRun, read_run
from resnetlab.runs.summary import best_column, best_row

COLUMNS = {"raw": "val/acc", "averaged": "val/acc_avg", "reestimated": "val/acc_recal"}


def describe(model: Classifier) -> dict[str, Any]:
    """Plain data: classes, preprocessing, recipe and figures, without the folders of its maker."""
    config, checkpoint, (height, width) = model.config, model.checkpoint, model.size
    identity = checkpoint["identity"] | {"seed": config.seed}
    return {
        **{"classes": model.class_names, "height": height, "width": width},
        "input": "uint8 N x 3 x H x W, RGB, 0..255, resized bilinearly; normalization is in the model",
        **{"model": config.model.name, "data": config.data.name, "split": config.data.split},
        **{"weights": model.weights, "epoch": checkpoint["epoch"] + 1, "torch": torch.__version__},
        "figures": checkpoint["callbacks"]["Recorder"]["rows"][checkpoint["epoch"]],
        "identity": {k: v for k, v in identity.items() if not (isinstance(v, str) and PurePath(v).is_absolute())},
    }


def model_card(model: Classifier, about: dict[str, Any], template: Template) -> str:
    """Markdown: data, recipe, accuracy over the finished seeds in the run's folder, split, selection, limits."""
    column, ranked = COLUMNS[model.weights], best_column(model.config)
    best = best_row(model.checkpoint["callbacks"]["Recorder"]["rows"], ranked) == about["figures"]
    test = "best_test_acc" if best else {"raw": "final_test_acc", "averaged": "averaged_test_acc"}.get(model.weights)
    values, tests = [], []
    for folder in sorted(model.path.absolute().parents[1].parent.glob("seed=*")):
        try:
            run = read_run(folder)
        except UnusableRun:
            continue
        row = (best_row(run.rows, ranked) if best else run.rows[-1]) or {}
        values += [row[column]] if column in row else []
        tests += [run.metrics[test]] if test in run.metrics else []
    texts = {"accuracy": about["figures"].get(column), "seeds": over_seeds(values), "test": over_seeds(tests)}
    return template.render(about=about, ranked=ranked, best=best, **texts) + "\n"


def over_seeds(values: Sequence[float]) -> str:
    """For example "0.9312, sd 0.0011, 95 % interval 0.9285 to 0.9339, n = 3 seeds"; "" without a value."""
    if (found := mean_interval(values)) is None:
        return ""
    spread = "" if found.sd is None else f", sd {found.sd:.4f}"
    interval = "" if found.low is None else f", 95 % interval {found.low:.4f} to {found.high:.4f}"
    return f"{found.mean:.4f}{spread}{interval}, n = {found.n} seed{'s' * (found.n > 1)}"
