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

    # Without a GIL, CPython 3.13 makes functions, code and types immortal when the first thread is
    # started, but not the frozen ones: all threads would count references to them, in turn.
    if getattr(sys, "_is_gil_enabled", _always)():
        gc.freeze()
    gc.enable()
    return run()


def _always() -> bool:
    return True


if __name__ == "__main__":
    sys.exit(main())
