"""The command `threadwell`, also as `python -m threadwell`."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """Run the command with the arguments of the process, and return its exit code."""
    # All that is imported here stays. To look for garbage in it is a twentieth of the start, and
    # would go on while the server runs.
    gc.disable()
    from .cli import main as run

    gc.freeze()
    gc.enable()
    return run()


if __name__ == "__main__":
    sys.exit(main())
