"""A process of a run on several devices that is not the first:

    python -m resnetlab.training.follower CONFIG

trains with the others and writes nothing. It ends with the process that started it.
"""

import sys
import time
from pathlib import Path

from resnetlab.sweeps.child_process import end_with_parent


def main(arguments: list[str]) -> int:
    end_with_parent()  # before torch is imported, which takes seconds
    from resnetlab.config.compose import read_yaml
    from resnetlab.errors import LabError, first_line
    from resnetlab.training.run import follow

    try:
        follow(read_yaml(Path(arguments[0])))
    except (LabError, OSError, RuntimeError) as error:
        time.sleep(1)  # if it is the first process that has died, this one ends here, without a word
        print(f"error: on another device: {first_line(error)}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
