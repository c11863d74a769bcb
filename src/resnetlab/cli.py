"""The command `resnetlab`."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from resnetlab.config.option_files import conf_dir, take_config_dir
from resnetlab.console import guarded, installed_version, print_stderr, say
from resnetlab.errors import ConfigError, LabError
from resnetlab.runs.layout import default_outputs


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand; returns the exit status: 2 if the command is wrong, 1 if something else is."""
    return guarded(lambda: command(sys.argv[1:] if argv is None else argv))


def command(argv: Sequence[str]) -> int:
    """Runs one subcommand, and prints one line for an error that is foreseen; returns the exit status."""
    try:
        return run_subcommand(take_config_dir(argv))
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if isinstance(error, LabError) and error.__cause__ is None and error.__context__ is None:
            print_stderr(f"error: {error}")  # without torch, which takes seconds
            return 2 if isinstance(error, ConfigError) else 1
        from resnetlab.config.messages import USAGE_ERRORS, print_error

        if not isinstance(error, (LabError, OSError, *USAGE_ERRORS)):
            raise
        return print_error(error)
    except KeyboardInterrupt as stop:
        from resnetlab.config.messages import interrupted

        return interrupted(stop)


def run_subcommand(argv: list[str]) -> int:
    """Runs one subcommand, and raises what goes wrong. argv: without --config-dir."""
    if argv[:1] == ["train"]:
        from resnetlab.sweeps.main import command as train

        return train(argv[1:])
    if argv[:3] == ["completion", "words", "--"]:  # what the shells' scripts ask for
        from resnetlab.config.completion import candidates

        say("\n".join(candidates(argv[3:], [*COMMANDS])))
        return 0
    parser = argparse.ArgumentParser(
        prog="resnetlab", description="Training recipes for small ResNets, measured.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"resnetlab {installed_version('resnetlab')}")
    parser.add_argument("--config-dir", metavar="DIR", help="presets and options of your own (default: ./conf)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (add_arguments, run, summary) in COMMANDS.items():
        add_arguments(subparser := commands.add_parser(name, help=summary, allow_abbrev=False))
        subparser.set_defaults(command=run)
    if any(
        re.fullmatch(r"(--[\w-]+=)?", argument) for argument in argv
    ):  # of an unset variable: Path("") is this folder
        parser.error("an argument is empty; give it a value, or leave it out")
    while "--alpha" in argv[:-1]:  # argparse would take it and the "-0.5:1.5:41" behind it for two options
        place = argv.index("--alpha")
        argv[place : place + 2] = [f"--alpha={argv[place + 1]}"]
    options, rest = parser.parse_known_args(argv)
    rest = [argument for argument in rest if argument not in ("-m", "--multirun")]  # a comma is enough
    if rest and (not hasattr(options, "overrides") or any(argument.startswith("-") for argument in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:  # overrides behind an option
        options.overrides += rest
    options.command(options)
    return 0


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, metavar="CKPT")
    parser.add_argument("--on", choices=("train", "val", "test"), default="val", help="which images (default: val)")
    weights = parser.add_mutually_exclusive_group()
    for name, text in (("averaged", "the averaged weights"), ("reestimated", "batch-norm statistics re-estimated")):
        weights.add_argument(f"--{name}", dest="weights", action="store_const", const=name, default="raw", help=text)
    add_root_and_model(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write classes.csv, confusion.png and mistakes.png")


def run_evaluate(options: argparse.Namespace) -> None:
    from resnetlab.training.evaluate import evaluate_checkpoint

    arguments = (options.checkpoint, options.on, options.weights, options.out)
    for name, value in evaluate_checkpoint(*arguments, root=options.root, model=options.model).items():
        say(f"{name:>10}  {value}" if isinstance(value, str | int) else f"{name:>10}  {value:.5f}")


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    kinds = ("best", "last", "averaged", "reestimated")
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="a checkpoint, or a run's folder")
    parser.add_argument("--weights", choices=kinds, default="best", help="as in load_model (default: best)")
    add_root_and_model(parser)


def add_root_and_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", help="the folder of the data set, for what the checkpoint itself lacks")
    parser.add_argument("--model", metavar="PATH", help="the dotted path of the network of a run with model=custom")


def add_predict(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="a picture, .npy, .npz, or a folder")
    parser.add_argument("--other-sizes", choices=("resize", "refuse"), default="resize", help="(default: resize)")
    parser.add_argument("--tta", choices=("flip",), help="flip: the mean of the image and the mirrored image")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a table, too")


def run_predict(options: argparse.Namespace) -> None:
    from resnetlab.training.inference.predict import load_model, print_predictions, probabilities_of, read_images

    model = load_model(options.checkpoint, options.weights, options.root, options.model)
    names, pixels = read_images(options.images, model.size, options.other_sizes == "resize")
    found = probabilities_of(model, pixels, options.tta == "flip")
    print_predictions(names, model.class_names, found, options.json, options.csv)


def add_export(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--to", choices=("safetensors", "onnx", "torch-export", "state-dict"), required=True)
    parser.add_argument("--out", type=Path, metavar="DIR", help="a new folder (default: <name of CKPT>-<form>)")
    parser.add_argument("--images", type=Path, nargs="+", default=[], help="compare on these, not on the data set's")
    parser.add_argument("--card", action="store_true", help="write a model card, README.md")


def run_export(options: argparse.Namespace) -> None:
    from resnetlab.report.card import model_card
    from resnetlab.training.inference.export import export
    from resnetlab.training.inference.predict import load_model

    model = load_model(options.checkpoint, options.weights, options.root, options.model)
    out = options.out or Path(f"{model.path.stem}-{options.to}")
    export(model, options.to, out, options.images, model_card if options.card else None)


def add_schedule(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser)
    parser.add_argument("--out", type=Path, default=Path("schedule.png"), help="the picture (default: schedule.png)")


def run_schedule(options: argparse.Namespace) -> None:
    from resnetlab.training.plots import schedule_command

    schedule_command(options.overrides, options.out)


def add_lr_range(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser)
    parser.add_argument("--start", type=float, default=1e-7, help="first learning rate (default: 1e-7)")
    parser.add_argument("--end", type=float, default=10.0, help="last learning rate (default: 10)")
    parser.add_argument("--steps", type=int, default=100, help="steps from start to end (default: 100)")
    parser.add_argument("--ramp", choices=("exponential", "linear"), default="exponential")
    parser.add_argument("--stop", type=float, default=4.0, help="end at this multiple of the least loss (default: 4)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: outputs/<study>/lr-range/<choices>")


def run_lr_range(options: argparse.Namespace) -> None:
    from resnetlab.training.lr_range import Ramp, lr_range_command

    ramp = Ramp(options.start, options.end, options.steps, options.ramp, options.stop)
    lr_range_command(options.overrides, ramp, options.out)


def add_interpolate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", type=Path, metavar="A", help="the checkpoint at alpha 1")
    parser.add_argument("second", type=Path, metavar="B", help="the checkpoint at alpha 0")
    parser.add_argument("--alpha", default="-0.5:1.5:41", help="start:stop:count or numbers (default: -0.5:1.5:41)")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N training and N/5 validation images only")
    add_root_and_model(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: a folder in A's run")


def run_interpolate(options: argparse.Namespace) -> None:
    from resnetlab.training.interpolate import alphas, interpolate_command

    arguments = (options.first, options.second, alphas(options.alpha), options.limit, options.out)
    interpolate_command(*arguments, root=options.root, model=options.model)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as for train.py: data=digits wd=0.1,0.2")


def run_train(options: argparse.Namespace) -> None:
    raise ConfigError("train stands behind an option; write it first: resnetlab train OVERRIDES")


def add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", type=Path, nargs="*", default=[default_outputs()], metavar="DIR")
    parser.add_argument("--once", action="store_true", help="print it once, as where there is no terminal")
    parser.add_argument("--all", action="store_true", help="every run, printed once")


def run_status(options: argparse.Namespace) -> None:
    with suppress(KeyboardInterrupt):  # the way to end it, and no failure
        from resnetlab.report.status import status_command

        status_command(options.folders, options.once, options.all)


def add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", type=Path, nargs="*", default=[default_outputs()], metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write report.html, table.csv, table.md and figures")
    parser.add_argument("--wide", action="store_true", help="print every column, however wide the terminal is")


def run_report(options: argparse.Namespace) -> None:
    from resnetlab.report.groups import collect
    from resnetlab.report.table import print_table
    from resnetlab.runs.files import make_folder
    from resnetlab.runs.load import require_folders

    require_folders(options.folders)
    if options.out is not None:
        make_folder(options.out / "figures")
    collection = collect(options.folders)
    paths: Sequence[Path] = []
    if options.out is not None:  # before anything is printed, which may fail
        from resnetlab.published.series_report import write_series_report

        try:
            paths = write_series_report(collection, options.out)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; the report in {options.out} is not complete") from None
    print_table(collection, options.wide)
    for path in paths:
        say(str(path))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="GROUP | GROUP=OPTION | KEY", help="such as schedule=cosine")


def run_options(options: argparse.Namespace) -> None:
    from resnetlab.config.help import options_text

    say(options_text(options.names))


def add_published(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", default="table", metavar="FORM", help="table, csv or json (default: table)")
    parser.add_argument("--post", help="the rows of one source: I, II, IV, V, VI, atienza, fastai, part1 or part2")
    parser.add_argument("--optimizer", help="such as adamw")
    parser.add_argument("--schedule", help="such as piecewise_linear")
    parser.add_argument("--id", metavar="GLOB", help="such as 'post4-*'")
    parser.add_argument("--wide", action="store_true", help="print every column, however wide the terminal is")
    parser.add_argument("--claims", type=Path, nargs="+", metavar="DIR", help="judge the claims by the runs below DIR")


def run_published(options: argparse.Namespace) -> None:
    if options.claims is not None:
        from resnetlab.published.claims.print_claims import print_claims

        for name in ("optimizer", "schedule", "id"):
            if getattr(options, name) is not None:
                raise ConfigError(f"--{name} (={getattr(options, name)}) does not go with --claims; --post does")
        print_claims(options.claims, options.format, options.post, options.wide)
        return
    from resnetlab.published.print_rows import print_rows
    from resnetlab.published.results import find

    print_rows(find(options.post, options.optimizer, options.schedule, options.id), options.format, options.wide)


def add_completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run_completion(options: argparse.Namespace) -> None:
    say((conf_dir() / "completion" / options.shell).read_text())


COMMANDS = {  # what adds the arguments, what runs it, and its line in --help
    "train": (add_overrides, run_train, "trains one configuration or a sweep, as train.py in a clone"),
    "evaluate": (add_evaluate, run_evaluate, "loss and accuracy of a checkpoint on any part of its data"),
    "predict": (add_predict, run_predict, "the most probable classes of pictures"),
    "export": (add_export, run_export, "a network in files that need no resnetlab: ONNX, safetensors and others"),
    "schedule": (add_schedule, run_schedule, "draws lr and momentum over a run before it is trained"),
    "lr-range": (add_lr_range, run_lr_range, "the learning-rate range test; a comma overlays several"),
    "interpolate": (add_interpolate, run_interpolate, "loss and accuracy on the line through two checkpoints' weights"),
    "status": (add_status, run_status, "how far every run is: a table that follows them on a terminal"),
    "report": (add_report, run_report, "a table of finished runs: mean, sd and n over seeds"),
    "published": (add_published, run_published, "the published results, and the preset that repeats each"),
    "options": (add_options, run_options, "the settings of train.py: groups, options, keys, their defaults"),
    "completion": (add_completion, run_completion, "prints the script that completes words in your shell"),
}

if __name__ == "__main__":
    sys.exit(main())
