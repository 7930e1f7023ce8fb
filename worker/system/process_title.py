"""What ps(1) and top(1) call a process. It needs setproctitle, and does nothing without."""

from __future__ import annotations


def set_process_title(role: str, app: str) -> None:
    """Call this process `threadwell: ROLE [APP]`; `app` is the name of the application, or empty.

    Only processes that a command has started should be renamed.
    """
    try:
        from setproctitle import setproctitle
    except ImportError:
        return
    setproctitle(f"threadwell: {role} [{app}]" if app else f"threadwell: {role}")
