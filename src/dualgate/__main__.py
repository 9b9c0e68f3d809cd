"""`python -m dualgate` is the command `dualgate`."""

import sys

from dualgate.study.cli import main

if __name__ == "__main__":  # importing this file, as tests of all examples do, runs nothing
    sys.exit(main())
