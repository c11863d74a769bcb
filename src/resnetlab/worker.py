"""The process of one job of hydra/launcher=processes, and the task of one of hydra/launcher=ray:

    python -m resnetlab.worker LOG OVERRIDES

trains that one run, writes its outcome to standard output and everything else to standard error, and ends with the
process that started it.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetlab.lifeline import end_with_parent

if TYPE_CHECKING:
    from resnetlab.sweeps.outcomes import Outcome

__all__ = ["main", "train_task"]


def main(arguments: list[str]) -> int:
    end_with_parent()  # before torch is imported, which takes seconds
    report = os.dup(1)
    os.dup2(2, 1)  # all that is printed goes into the log
    outcome = train(Path(arguments[0]), arguments[1:])
    os.write(report, json.dumps(asdict(outcome)).encode())
    return int(outcome.status == "failed")


def train_task(folder: str, log: str, overrides: list[str]) -> dict[str, Any]:
    """The outcome's fields, trained in a worker of Ray, whose working folder and output may be anywhere."""
    os.chdir(folder)
    with Path(log).open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    return asdict(train(Path(log), overrides))


def train(log: Path, overrides: list[str]) -> "Outcome":
    from resnetlab.config import compose
    from resnetlab.refusals import refusal
    from resnetlab.search.assignment import watch_of
    from resnetlab.sweeps.outcomes import SweepFolder, attempt, failure

    try:
        config = compose(*overrides)
        watch = watch_of(SweepFolder(log.parent), int(log.stem.removeprefix("job-")))
    except Exception as error:  # its parent has composed it: files have changed since
        return failure(error, refusal(error), log)
    return attempt(config, log, refusal, watch)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
