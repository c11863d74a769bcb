"""The command `resnetlab`."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from resnetlab.config import option_files
from resnetlab.console import guarded, installed_version, interrupted, print_stderr, say
from resnetlab.errors import ConfigError, LabError
from resnetlab.runs.files import data_beside
from resnetlab.runs.layout import default_outputs

TABLE: dict[str, Any] = data_beside(option_files.__file__, "commands.toml")
COMMANDS: dict[str, dict[str, Any]] = TABLE["commands"]
TYPES = {"path": Path, "int": int, "float": float}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand; returns the exit status: 2 if the command is wrong, 1 if something else is."""
    return guarded(lambda: command(sys.argv[1:] if argv is None else argv))


def train_main(arguments: Sequence[str] | None = None) -> int:
    """Runs train.py, which is `resnetlab train`; status 1 if a job failed, 2 if it is refused, 130 after Ctrl-C."""
    return main(["train", *(sys.argv[1:] if arguments is None else arguments)])


def command(argv: Sequence[str]) -> int:
    """Runs one subcommand, and prints one line for an error that is foreseen; returns the exit status."""
    try:
        argv = option_files.take_config_dir(argv)
        if argv[:1] != ["train"] or {"-h", "--help"} & {*argv}:
            return run_subcommand(argv)
        from resnetlab.sweeps.command import run_command  # takes seconds, in which an impatient user may interrupt
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
        return interrupted(stop)
    return run_command(argv[1:])  # which prints its own errors


def run_subcommand(argv: list[str]) -> int:
    """Runs one subcommand, and raises what goes wrong. argv: without --config-dir."""
    if argv[:1] == ["train"]:
        from resnetlab.config.help_and_completion import help_text

        say(help_text())
        return 0
    if argv[:3] == ["completion", "words", "--"]:  # what the shells' scripts ask for
        from resnetlab.config.help_and_completion import candidates

        say("\n".join(candidates(argv[3:], [*COMMANDS])))
        return 0
    about = "Training recipes for small ResNets, measured."
    parser = argparse.ArgumentParser(prog="resnetlab", description=about, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"resnetlab {installed_version('resnetlab')}")
    own = "presets and options of your own (default: ./conf)"
    parser.add_argument("--config-dir", metavar="DIR", default=argparse.SUPPRESS, help=own)  # argv is without it
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, row in COMMANDS.items():
        add_arguments(commands.add_parser(name, help=row["help"], allow_abbrev=False), row["arguments"])
    empty = (re.fullmatch(r"(--[\w-]+=)?", argument) for argument in argv)
    if any(empty):  # of an unset variable: Path("") is this folder
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
    run, arguments = resolve_name(f"resnetlab.{COMMANDS[options.command]['run']}"), vars(options)
    del arguments["command"]
    if isinstance(text := run(**arguments), str):
        say(text)
    return 0


def add_arguments(parser: argparse.ArgumentParser, arguments: dict[str, dict[str, Any]]) -> None:
    """Adds the arguments of a command, {name or flag: what commands.toml says of it}."""
    exclusive = cache(parser.add_mutually_exclusive_group)
    for name, own in arguments.items():
        options = TABLE["shared"].get(name, {}) | own
        if "type" in options:
            options["type"] = TYPES[options["type"]]
        place = exclusive() if options.pop("exclusive", False) else parser
        place.add_argument(name, **options)


def train(overrides: list[str]) -> None:
    raise ConfigError("train stands behind an option; write it first: resnetlab train OVERRIDES")


def evaluate(checkpoint: Path, on: str, weights: str, root: str | None, model: str | None, out: Path | None) -> None:
    from resnetlab.training.evaluate import evaluate_checkpoint

    for name, value in evaluate_checkpoint(checkpoint, on, weights, out, root=root, model=model).items():
        say(f"{name:>10}  {value}" if isinstance(value, str | int) else f"{name:>10}  {value:.5f}")


def predict(
    images: list[Path], other_sizes: str, tta: str | None, json: bool, csv: Path | None, **of_model: Any
) -> None:
    from resnetlab.training.inference.predict import load_model, print_predictions, probabilities_of, read_images

    model = load_model(**of_model)
    names, pixels = read_images(images, model.size, other_sizes == "resize")
    print_predictions(names, model.class_names, probabilities_of(model, pixels, tta == "flip"), json, csv)


def export(to: str, out: Path | None, images: list[Path], card: bool, **of_model: Any) -> None:
    from resnetlab.report.card import model_card
    from resnetlab.training.inference.export import export
    from resnetlab.training.inference.predict import load_model

    model = load_model(**of_model)
    export(model, to, out or Path(f"{model.path.stem}-{to}"), images, model_card if card else None)


def status(folders: list[Path], once: bool, everything: bool) -> None:
    with suppress(KeyboardInterrupt):  # the way to end it, and no failure
        from resnetlab.report.status import status_command

        status_command(folders or [default_outputs()], once, everything)


def report(folders: list[Path], out: Path | None, wide: bool) -> None:
    from resnetlab.report.groups import collect
    from resnetlab.report.table import print_table
    from resnetlab.runs.files import make_folder
    from resnetlab.runs.load import require_folders

    folders = folders or [default_outputs()]
    require_folders(folders)
    if out is not None:
        make_folder(out / "figures")
    collection = collect(folders)
    paths: Sequence[Path] = []
    if out is not None:  # first, because it may fail: then nothing is printed
        from resnetlab.published.series_report import write_series_report

        try:
            paths = write_series_report(collection, out)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; the report in {out} is not complete") from None
    print_table(collection, wide)
    for path in paths:
        say(str(path))


def published(form: str, post: str | None, wide: bool, claims: list[Path] | None, **chosen: str | None) -> None:
    if claims is not None:
        from resnetlab.published.claims.print_claims import print_claims

        for name, value in chosen.items():
            if value is not None:
                raise ConfigError(f"--{name} (={value}) does not go with --claims; --post does")
        print_claims(claims, form, post, wide)
        return
    from resnetlab.published.print_rows import print_rows
    from resnetlab.published.results import find

    print_rows(find(post, **chosen), form, wide)
