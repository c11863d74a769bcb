"""The command `resnetlab`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from resnetlab.errors import DataError, LabError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand; returns the exit status."""
    parser = argparse.ArgumentParser(prog="resnetlab", description="Training recipes for small ResNets, measured.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_evaluate(commands)
    add_report(commands)
    add_bench(commands)
    options = parser.parse_args(argv)
    try:
        options.command(options)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def add_evaluate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("evaluate", help="loss and accuracy of a checkpoint on any part of its data")
    parser.add_argument("checkpoint", type=Path, metavar="CKPT")
    parser.add_argument("--on", choices=("train", "val", "test"), default="val", help="which images (default: val)")
    parser.add_argument(
        "--averaged", action="store_true", help="the averaged weights (EMA, SWA) instead of the raw ones"
    )
    parser.add_argument("--root", help="the folder of the data set, if it has moved")
    parser.set_defaults(command=run_evaluate)


def run_evaluate(options: argparse.Namespace) -> None:
    from resnetlab.evaluation import evaluate_checkpoint

    figures = evaluate_checkpoint(options.checkpoint, options.on, options.root, options.averaged)
    for name, value in figures.items():
        print(f"{name:>10}  {value}" if isinstance(value, str | int) else f"{name:>10}  {value:.5f}")


def add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("report", help="a table of finished runs: mean, sd and n over seeds")
    parser.add_argument("folders", type=Path, nargs="*", default=[Path("outputs")], metavar="DIR")
    parser.set_defaults(command=run_report)


def run_report(options: argparse.Namespace) -> None:
    from resnetlab.report.table import print_table

    for folder in options.folders:
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder; name one that holds runs, such as outputs")
    print_table(options.folders)


def add_bench(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("bench", help="the lab's step against a bare loop's, in turn in one run")
    parser.add_argument("--steps", type=int, default=90, help="measured steps of each kind, at least (default: 90)")
    parser.add_argument("--turn", type=int, default=1, help="steps in a row of each kind (default: 1; a GPU wants 50)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--model", default="resnet56v2")
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    parser.set_defaults(command=run_bench)


def run_bench(options: argparse.Namespace) -> None:
    from resnetlab.bench import bench

    bench(options.model, options.steps, options.turn, options.batch_size, options.out)
