"""The end of a run: evaluates the final weights, draws the curves, writes and prints the summary."""

from functools import cache
from typing import Any

from resnetlab.config.schema import Config
from resnetlab.data import Images
from resnetlab.errors import DataError
from resnetlab.runs.curves_plot import Points, draw_curves
from resnetlab.runs.files import write_json, write_rows
from resnetlab.runs.layout import PREDICTIONS
from resnetlab.runs.summary import AVERAGED, Summary, lag_note, out_of_patience, summarize
from resnetlab.training.build import Session
from resnetlab.training.callbacks.checkpoints import describe_damage, read_run_checkpoint
from resnetlab.training.describe import model_counts
from resnetlab.training.distributed import is_secondary
from resnetlab.training.evaluate import evaluate, load_weights, write_predictions
from resnetlab.training.plots import validation_figures
from resnetlab.training.result import print_line, result_lines


def conclude(config: Config, session: Session, status: str, extra: dict[str, Any]) -> Summary:
    """The summary of a run that has come to its end; written by the first process, which alone evaluates test images.

    status: finished | diverged. extra: further keys of the summary.
    """
    rows, module, folder = session.recorder.rows, session.module, config.folder
    data, names = session.data, session.data.class_names
    counts = model_counts(module.model)
    summary = summarize(config, rows, status=status, parameters=counts["trainable_parameters"]) | extra
    if is_secondary():
        return summary
    if status == "finished" and len(rows) < config.epochs:
        lost = out_of_patience(rows, config.trainer.patience)
        why = f"no new best val_acc for {config.trainer.patience} epochs" if lost else "a callback asked for it"
        print_line(config, f"stopped early after epoch {len(rows)}: {why}")
    write_rows(folder.metrics, rows)
    if status == "finished" and data.test_images is not None:
        summary |= test_accuracies(config, session, data.test_images)
    if rows:
        title = f"{folder.path.parent.name}, seed {config.seed}"
        draw_curves(rows, config.thresholds, title, folder.curves, summary, applied_rates(session, len(rows)))
    if status == "finished":
        answers = cache(lambda: evaluate(module, data, data.val, config.trainer.device))
        session.loggers.finish(session.trainer, summary, lambda: validation_figures(answers()[1], data.val, names))
        if config.predictions:
            write_predictions(folder.path / PREDICTIONS, module, data, data.val, answers())
    write_json(folder.summary, summary)
    for line in result_lines(folder, summary):
        print_line(config, line)
    if counts["statistics"] and (note := lag_note(rows, len(names))):
        print_line(config, f"note: {note}")
    return summary


def applied_rates(session: Session, epochs: int) -> Points | None:
    """(epochs done, lr) of up to 2,000 steps, as planned; None where the schedule decides as the run goes."""
    module, length = session.module, session.module.span.steps_per_epoch
    if module.config.schedule.stateful:
        return None
    steps = range(0, epochs * length, -(-epochs * length // 2000))
    rates = module.lr_momentum_table[list(steps), 0].tolist()
    return [*(step / length for step in steps), float(epochs)], [*rates, rates[-1]]


def test_accuracies(config: Config, session: Session, images: Images) -> dict[str, float]:
    """Accuracy on the untouched test images, once: of the weights best.ckpt was saved for, the final, the average."""
    module, rows, column = session.module, session.recorder.rows, session.recorder.best_column
    state = {key: value.clone() for key, value in module.state_dict().items()}
    final = {"state_dict": state, "statistics": module.statistics, "epoch": len(rows) - 1}
    parts = [("averaged", final, "averaged")] if module.averaged else []
    best = session.recorder.best()
    assert best is not None
    try:
        chosen = "averaged" if column == AVERAGED and column in best else "raw"
        saved = read_run_checkpoint(config.folder.best, config)
        if saved["epoch"] + 1 != best["epoch"]:
            raise DataError(f"it is of epoch {saved['epoch'] + 1}, not {best['epoch']}")
        parts.append(("best", saved, chosen))
    except Exception as error:  # torch raises many kinds for a damaged file
        damage = describe_damage(config.folder.best, error)
        print_line(config, f"note: {config.folder.best} cannot be used ({damage}): best_test_acc is unknown")
    accuracies, device = {}, config.trainer.device
    for name, checkpoint, weights in (*parts, ("final", final, "raw")):  # these last: they stay in the module
        with load_weights(module, session.data, checkpoint, weights, device):
            accuracies[f"{name}_test_acc"] = evaluate(module, session.data, images, device)[0]["acc"]
    return accuracies
