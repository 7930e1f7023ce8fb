"""Starting a thread where the system may have none left."""

from __future__ import annotations

import errno
import threading


def start_thread(thread: threading.Thread) -> None:
    """Start `thread`. Raises `OSError`, as other calls do that the system refuses.

    Python raises `RuntimeError` where pthread_create(3) fails with EAGAIN: by RLIMIT_NPROC, or by
    the limit of a control group.
    """
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, f"no thread can be started ({error})") from None


def start_or_run(thread: threading.Thread) -> bool:
    """Start `thread`; run its target on the calling thread instead if it cannot be started.

    Whether it was started. For what must happen at the end, whatever the system has left.
    """
    try:
        start_thread(thread)
    except OSError:
        thread.run()
        return False
    return True
