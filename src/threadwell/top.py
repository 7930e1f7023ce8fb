"""The command `threadwell top`: a live view of a running server."""

from __future__ import annotations

import sys
import threading

from .control_client import ControlError
from .process_setup import USAGE_ERROR, say
from .top_view import Watcher, as_text

_CLEAR = "\x1b[H\x1b[2J"
_INTERRUPTED = 130


def run(path: str, interval: float, once: bool) -> int:
    """Show the server behind the control socket at `path`; return the exit code.

    Without a terminal, or with `once`, it prints one view. Without textual it prints a view every
    `interval` seconds.
    """
    watcher = Watcher(path)
    try:
        watcher.ask("status")
    except ControlError as error:
        say(f"threadwell: {error}", sys.stderr)
        return USAGE_ERROR
    try:
        if once or not (sys.stdout.isatty() and sys.stdin.isatty()):
            return _print_one(watcher, interval)
        try:
            from .top_screen import TopScreen
        except ImportError:
            return _print_many(watcher, interval)
        TopScreen(watcher, interval).run()
        return 0
    finally:
        watcher.close()


def _print_one(watcher: Watcher, interval: float) -> int:
    """Print one view, whose rates are those of `interval` seconds."""
    watcher.look()
    threading.Event().wait(interval)
    view = watcher.look()
    if view.error:
        say(f"threadwell: {view.error}", sys.stderr)
        return USAGE_ERROR
    say(as_text(view))
    return 0


def _print_many(watcher: Watcher, interval: float) -> int:
    hint = "Ctrl-C ends; for keys and colours: pip install 'threadwell[top]'"
    try:
        while True:
            say(f"{_CLEAR}{as_text(watcher.look())}\n\n{hint}")
            threading.Event().wait(interval)
    except KeyboardInterrupt:
        return _INTERRUPTED
