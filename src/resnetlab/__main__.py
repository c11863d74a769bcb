"""`python -m resnetlab`, which is the command `resnetlab`."""

import sys

from resnetlab.cli import main

if __name__ == "__main__":
    sys.argv[0] = "resnetlab"  # for the manifest's command
    sys.exit(main())
