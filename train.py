"""Trains one configuration, or a sweep of them.

    python train.py optimizer=adamw schedule=piecewise_linear -m wd=0.1,0.2,0.3

Overrides may stand on both sides of -m; seeds=5 is short for -m seed=0,1,2,3,4. Every job is checked before the first
starts. The exit status is 0 when everything ran (a run that diverges is a result), 1 when something failed, 2 when the
command was refused, 130 after Ctrl-C. The same command again goes on.
"""

import sys

from resnetlab.cli import train_main

if __name__ == "__main__":
    sys.exit(train_main())
