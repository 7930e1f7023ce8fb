"""Other processes: whose children they are, descriptors that stand for them, and orphans."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Set as AbstractSet


def parent_of(pid: int) -> int | None:
    """The id of the parent of the process `pid`; None if there is no such process.

    Also None if the system does not say it: without /proc and without ps(1).
    """
    if os.path.exists("/proc/self/stat"):
        return _parent_in_proc(pid)
    try:
        command = ["ps", "-o", "ppid=", "-p", str(pid)]
        return int(subprocess.run(command, capture_output=True, check=True, timeout=5).stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _parent_in_proc(pid: int) -> int | None:
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return None  # it is that of another namespace, where `pid` is another process
        with open(f"/proc/{pid}/stat", "rb") as file:
            # proc_pid_stat(5): the second field is a name, which may have spaces and brackets
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None


def open_process(pid: int) -> int:
    """A descriptor of the process `pid`, see pidfd_open(2); -1 if it cannot be had."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # Linux has it; a container may forbid it
        return -1


def send_signal(handle: int, number: int) -> None:
    """Send a signal to the process that `open_process` has opened.

    Raises `ProcessLookupError` if it has exited. Unlike an id, the descriptor cannot come to stand
    for another process meanwhile.
    """
    signal.pidfd_send_signal(handle, number)


def reap_orphans(own: AbstractSet[int | None]) -> None:
    """Reap processes of others, if this is the first process of a container: it inherits orphans.

    The caller waits for the children `own` itself.
    """
    while os.getpid() == 1:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in own:
            return
        os.waitpid(found.si_pid, os.WNOHANG)
