"""The Python stacks of other threads, and of what waits on an event loop.

With a GIL the frames of another thread can be looked at: it does not run meanwhile. Without one
that may crash the interpreter (see Python's "free-threading" how-to, "Frame objects"). There the
stacks are those that faulthandler prints while it has stopped all threads.
"""

from __future__ import annotations

import faulthandler
import linecache
import re
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FrameType

#: How many frames of a stack are shown: those nearest to what runs.
MOST_FRAMES = 100

_THREAD = re.compile(r"^(?:Current thread|Thread) 0x([0-9a-f]+)", re.MULTILINE)
_FRAME = re.compile(r'^ +File "(.*)", line (\d+|\?\?\?) in (.*)$', re.MULTILINE)


def can_see_frames() -> bool:
    """Whether this interpreter lets a thread look at the frames of another one."""
    check = getattr(sys, "_is_gil_enabled", None)
    return check is None or bool(check())


def current_frames() -> dict[int, FrameType]:
    """The innermost frame of each thread, by its id; empty where frames cannot be looked at."""
    return sys._current_frames() if can_see_frames() else {}


def find_frame(frame: FrameType | None, code: CodeType) -> FrameType | None:
    """The innermost frame of `code` in the stack that ends with `frame`."""
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame


def stack_of(ident: int) -> str:
    """The stack of the thread `ident`, as in a traceback; empty if there is no such thread."""
    return stacks().get(ident, "")


def stacks() -> dict[int, str]:
    """The stacks of all threads, as in a traceback, by the ids of the threads."""
    if not can_see_frames():
        return _printed_stacks()
    frames = sys._current_frames()
    try:
        return {ident: format_stack(frame) for ident, frame in frames.items()}
    finally:
        frames.clear()  # else this function's own frame would refer to itself


def format_stack(frame: FrameType) -> str:
    """The stack that ends with `frame`, which does not run meanwhile."""
    walked = traceback.walk_stack(frame)
    found = traceback.StackSummary.extract(walked, limit=MOST_FRAMES)
    found.reverse()
    return "".join(found.format())


def stack_of_coroutine(coroutine: Any) -> str:
    """Where a suspended coroutine waits: its frame, and those of what it awaits."""
    frames = [*_awaited(coroutine)][-MOST_FRAMES:]
    return "".join(traceback.StackSummary.extract(iter(frames)).format())


def _awaited(coroutine: Any) -> Iterator[tuple[FrameType, int]]:
    while coroutine is not None:
        for kind, following in (("cr", "await"), ("gi", "yieldfrom"), ("ag", "await")):
            frame = getattr(coroutine, f"{kind}_frame", None)
            if frame is not None:
                yield frame, frame.f_lineno
                coroutine = getattr(coroutine, f"{kind}_{following}", None)
                break
        else:
            return


def thread_names() -> dict[int, str]:
    """The names of the threads that Python knows, by their ids."""
    return {thread.ident: thread.name for thread in threading.enumerate() if thread.ident}


def _printed_stacks() -> dict[int, str]:
    import tempfile  # which brings much along, and most servers never need it

    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        text = file.read().decode(errors="replace")
    _, *parts = _THREAD.split(text)
    found = {}
    for ident, printed in zip(parts[::2], parts[1::2], strict=True):
        frames = _FRAME.findall(printed)[:MOST_FRAMES]
        found[int(ident, 16)] = "".join(_as_in_traceback(*frame) for frame in reversed(frames))
    return found


def _as_in_traceback(file: str, line: str, name: str) -> str:
    source = linecache.getline(file, int(line)).strip() if line.isdigit() else ""
    return f'  File "{file}", line {line}, in {name}\n' + (f"    {source}\n" if source else "")
