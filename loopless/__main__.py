"""`python -m loopless` is the command `loopless`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
