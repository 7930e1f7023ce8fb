"""Which request each thread runs: for `--control`, the slow request log and others.

A request pays nothing for it. Where there is a GIL, the look finds `exchange` among the frames of
the thread. Some requests are sampled: the look puts `tracked` around the next few of each thread,
for their durations. Without a GIL frames cannot be looked at; `tracked` then stays, for a server
that tracks requests.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from ..connection import Connection
from ..hijack import HijackedWebSocket
from ..lifecycle import RunningRequest
from ..polling.task import ThreadTask
from ..system.stacks import find_frame

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    from .leader_follower import Slot

_monotonic = time.monotonic


class TrackedThread(Protocol):
    """What is used here of a `ThreadState`."""

    worker_id: int
    served: int
    ident: int
    thread_name: str
    slot: Slot


def tracked(exchange: Callable[..., Any], *, stays: bool) -> Callable[..., Any]:
    """`exchange`, with a note of the request on the thread's slot meanwhile, and of its duration.

    The duration ends when the response, or the head of a stream, was rendered: the writer has
    looked at its clock then. Unless it `stays`, the thread calls `exchange` itself again once no
    more samples are wanted.
    """

    def tracked_exchange(worker: Any, conn: Connection, head: Any, body: Any) -> Any:
        slot = worker.slot
        began = _monotonic()
        slot.request = (conn, head, began)
        outcome = exchange(worker, conn, head, body)
        slot.request = None
        now = worker.writer.now
        if now > began:  # else the application has answered by itself, on a hijacked socket
            worker.durations.add(now - began)
        if not (stays or worker.durations.wants_more()):
            worker.sample(wanted=False)
        return outcome

    return tracked_exchange


def running(
    thread: TrackedThread, frames: dict[int, FrameType], code: CodeType
) -> RunningRequest | None:
    """The request that `thread` runs. Any thread may call.

    `frames` are those of `current_frames`, and `code` is that of `exchange`, in which the request
    is looked for if the thread has not noted it.
    """
    slot = thread.slot
    serving, noted = slot.serving, slot.request
    if isinstance(serving, ThreadTask):
        return serving.running(thread)
    if not isinstance(serving, Connection):
        return None
    conn, head, began = serving, None, 0.0
    # a note stays when `exchange` raises: the thread then serves something else, or nothing
    if isinstance(noted, tuple) and noted[0] is conn:
        head, began = noted[1:]
    elif (frame := find_frame(frames.get(thread.ident), code)) is not None:
        head = frame.f_locals.get("head")
    if head is None:
        return None
    stream, hijacked = conn.stream_writer, conn.hijacked
    record = conn.record
    began = began or conn.started or (record.started if record is not None else 0.0)
    ran = max(_monotonic() - began, 0.0) if began else 0.0
    state, sent = "running", 0
    if hijacked is not None:
        state = "websocket" if isinstance(hijacked, HijackedWebSocket) else "hijacked"
    elif stream is not None and stream.headers_sent:
        state, sent = "streaming", stream.sent
    return RunningRequest(
        key=key_of(thread),
        state=state,
        method=head.method,
        path=head.path,
        client=conn.client,
        request_id=conn.request_id,
        age=ran or conn.request_age(),
        ran=ran,
        sent=sent,
        thread=thread.thread_name,
        ident=thread.ident,
        lent=slot.lent,
    )


def key_of(thread: TrackedThread) -> str:
    """The `RunningRequest.key` of the request that `thread` runs."""
    return f"t{thread.worker_id}.{thread.served}"
