"""What an exported network is: model.json, and a model card with the front matter of model hubs."""

from contextlib import suppress
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
        with suppress(UnusableRun):
            run = read_run(folder)
            row = (best_row(run.rows, ranked) if best else run.rows[-1]) or {}
            values += [row[column]] if column in row else []
            tests += [run.metrics[test]] if test in run.metrics else []
    figures = {"accuracy": about["figures"].get(column), "seeds": mean_interval(values), "test": mean_interval(tests)}
    return template.render(about=about, ranked=ranked, best=best, **figures) + "\n"
