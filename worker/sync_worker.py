"""`SyncWorker`: a thread that serves requests, and the pool that it shares with others.

    run
      _run_accept_loop | _run_from_queue      Poller.wait: an event becomes this thread's connection
        _handle_connection                    a failure in there costs one connection
          _handle_connection_impl             goes on where the connection stood
            handshake.resume                  a PROXY header, a handshake, the rest of an answer
            _recv_request_fast                recv, RequestParser.parse, HeadBuffer, BodyReceiver
            exchange                          one request, one answer
              what_is_asked                   the fields that concern the connection, if any
              sync_app(request)               once
              ResponseWriter.answer           one send; the rest waits in the poller
              HTTP1Runner.respond             a body that is being made: the thread is lent
            finalize.park ...                 Poller.park: the connection belongs to the poller

Threads: `run` starts a pool. Its workers share a poller, the leader/follower schedule and the
configuration. Parser, writer and their caches belong to one worker, which only its own thread uses.
Methods under "Any thread" may be called from any thread, and act on the whole pool.
"""

from __future__ import annotations

import contextvars
import logging
import time
from typing import TYPE_CHECKING, Any, cast

from .app_kind import bind_call, decline, is_asgi
from .assembly import check, make_loops, make_threads, with_files
from .connection import Connection, State
from .errors import ClientDisconnected, ProtocolError
from .http.request_meta import RequestMeta, classify_request
from .http1.budgets import LONGEST_REPEATED_HEAD, RECV_SIZE, REQUESTS_PER_TURN
from .http1.parser import EmptyLineError
from .lifecycle import guarded
from .net.bind import address_of
from .polling.task import ThreadTask
from .system.stacks import can_see_frames
from .threads import finalize, handshake, reader
from .threads.exchange import Outcome, exchange, exchange_forwarded
from .threads.streaming import HTTP1Runner
from .threads.thread_state import ThreadState
from .threads.tracking import running, tracked
from .tls.context import context_for
from .tls.wrong_port import WITH_TLS

if TYPE_CHECKING:
    import asyncio
    import socket
    import ssl
    import threading
    from collections.abc import Callable
    from types import FrameType
    from typing import BinaryIO

    from .config import ServerConfig
    from .connection import PushedResponse
    from .hijack import HijackedSocket
    from .interfaces import AsyncPool, ServingPool
    from .lifecycle import LifecycleCollector, RunningRequest
    from .messages import ASGIApp, HeaderList, Request, RequestReceived, Response, SyncApp
    from .polling.base import ConnectionQueue
    from .polling.task import AnyTask

log = logging.getLogger("threadwell")

# The reference page has these two here.
_RequestMeta, _classify_request = RequestMeta, classify_request

_new_context = contextvars.Context

_SERVING, _IDLE, _CLOSED = State.SERVING, State.IDLE, State.CLOSED
_NEXT, _ENDED = Outcome.NEXT, Outcome.ENDED


class SyncWorker(ThreadState):
    """Serves HTTP/1.1 on a thread, without an event loop; `run` starts workers on more threads.

    `app` is a `SyncApp` or an ASGI application. They are told apart by inspection, unless
    `threadwell_interface` on the application decides. `sync_app` beside an ASGI `app` takes the
    requests first; upgrades, and what it answers with None, go to `async_pool`.

    `sock` is a listening socket, or None with `conn_queue`, which the caller fills with (socket,
    address) pairs. `ssl_context` replaces what `config.tls` describes. Setting `shutdown_event`
    stops `run` within a second. `lifecycle_collector` receives the events of `lifecycle`.

    An ASGI `app` without `sync_app` is served by event loops (`asgi.pool`): `run` makes its thread
    the first of them. `_handle_connection` hands over to them, or where none runs, serves on a loop
    of its own; a blocking socket is read on the calling thread like any other.

    Raises `ConfigError`, and `TypeError` for what is no application.
    """

    def __init__(
        self,
        config: ServerConfig,
        app: ASGIApp | SyncApp,
        sock: socket.socket | None,
        *,
        worker_id: int = 0,
        shutdown_event: threading.Event | None = None,
        ssl_context: ssl.SSLContext | None = None,
        lifecycle_collector: LifecycleCollector | None = None,
        async_pool: AsyncPool | None = None,
        conn_queue: ConnectionQueue | None = None,
        sync_app: SyncApp | None = None,
    ) -> None:
        check(config)
        if config.static.mounts:
            app, sync_app = with_files(config.static, app, sync_app)
        collector = guarded(lifecycle_collector)
        if ssl_context is None:
            ssl_context = context_for(config)
        pool: ServingPool
        if sync_app is None and is_asgi(app):
            sync_app = decline
            pool = loops = make_loops(
                cast("ASGIApp", app), config, collector, ssl_context, shutdown_event, conn_queue
            )
            async_pool = async_pool or loops
        else:
            sync_app = bind_call(cast("SyncApp", app) if sync_app is None else sync_app)
            pool = make_threads(
                config, collector, self._clone, async_pool, ssl_context, shutdown_event, conn_queue
            )
        self._prepare(config, app, sync_app, pool, worker_id, collector, async_pool)
        if sock is not None:
            pool.listen(sock)

    def _prepare(
        self,
        config: ServerConfig,
        app: ASGIApp | SyncApp,
        sync_app: SyncApp,
        pool: ServingPool,
        worker_id: int,
        collector: LifecycleCollector | None,
        async_pool: AsyncPool | None,
    ) -> None:
        """Become a worker of `pool`."""
        super().__init__(
            config,
            app,
            sync_app,
            pool,
            worker_id=worker_id,
            collector=collector,
            async_pool=async_pool,
        )
        self._keep_alive = config.timeouts.keep_alive
        self._untracked = exchange if self.forwarding is None else exchange_forwarded
        self._tracked = tracked(self._untracked, stays=not can_see_frames())
        self.sample(wanted=self.durations is not None)
        pool.add(self)

    def _clone(self) -> SyncWorker:
        """A worker of the same pool, for another thread."""
        clone = object.__new__(SyncWorker)
        clone._prepare(
            self.config,
            self.app,
            self.sync_app,
            self.pool,
            self.worker_id + self.pool.number(),
            self.collector,
            self.async_pool,
        )
        return clone

    # ---- Any thread -----------------------------------------------------------------------

    def set_lifespan_state(self, state: dict[str, Any]) -> None:
        """Set the lifespan's state, shared with all requests that go to the asyncio side."""
        self.pool.lifespan_state = state

    def wait_until_ready(self) -> None:
        """Return when `run`, on another thread, serves.

        An ASGI application starts up first. Raises `StartupError` when it says that it cannot.
        """
        self.pool.wait_until_ready()

    def start_draining(self) -> None:
        """Stop listening, now. Requests in flight finish and close; idle connections close."""
        self.pool.drain()

    def is_idle(self) -> bool:
        """Whether no request is being read, served, streamed or written."""
        return self.pool.is_idle()

    def listen(self, sock: socket.socket, *, plain: bool = False) -> None:
        """Accept connections from `sock` too, which listens; `plain`: without TLS."""
        self.pool.listen(sock, plain=plain)

    def use_context(self, ssl_context: ssl.SSLContext) -> None:
        """Use `ssl_context` for the handshakes from now on. Listeners without TLS stay so, and open
        connections keep their session."""
        self.pool.use_context(ssl_context)

    def adopt_back(self, conn: Connection, let_go: Callable[[], object]) -> bool:
        """Serve the next request of `conn`, which a loop had adopted.

        `let_go` is called first, and must leave the connection IDLE or YIELDED. False, and nothing
        happens, where the pool serves no more.
        """
        poller = self.poller
        # before the look at `draining`: the thread that drains sees this, or is seen here
        poller.begin_return()
        try:
            now = time.monotonic()
            if poller.draining and now >= poller.idle_until:
                return False
            let_go()
            conn.deadline = now + self._keep_alive
            conn.worker = None
            poller.adopt_back(conn, now)
        except (OSError, ClientDisconnected) as error:  # the pool has ended meanwhile
            if conn.state is not _CLOSED:  # `ThreadPool.close` may have closed it
                finalize.close(self, conn, f"lost: {error}")
        finally:
            poller.end_handoff()
        return True

    def running(self, frames: dict[int, FrameType]) -> RunningRequest | None:
        """See `PoolThread.running`."""
        return running(self, frames, exchange.__code__)

    def sample(self, *, wanted: bool) -> None:
        """Take the time of the next requests, or of no more."""
        self._exchange = self._tracked if wanted else self._untracked

    def shutdown(self, timeout: float, linger: float = 0.0) -> None:
        """Drain, for `timeout` seconds at most; then cut what is left, and make `run` return.

        Idle connections stay for another `linger` seconds, for a request that is on its way.
        """
        self.pool.shutdown(timeout, linger)

    def cut(self) -> None:
        """End every connection now, whatever its state."""
        self.pool.cut()

    def stop(self) -> None:
        """Make `run` return as soon as the threads are done with their requests."""
        self.pool.stop()

    def run(self) -> None:
        """Serve until `stop` is called or `shutdown_event` is set (blocking).

        The calling thread serves, and starts the other threads of the configuration. Afterwards
        the poller and the listening sockets are closed.
        """
        self.pool.run(self)

    def close_connection(self, conn: Connection, reason: str) -> None:
        """Close `conn`, which no thread owns any more, and report `reason`."""
        finalize.close(self, conn, reason)

    def close(self) -> None:
        """End every connection, close the listening sockets, and free the poller.

        `run` does it at its end. This is for a worker that is not run, or driven by other code.
        """
        self.pool.close(self)

    # ---- The loop of this thread ------------------------------------------------------------

    def poll_and_serve(self, poll_interval: float) -> None:
        """Poll, and serve, while this thread has a slot."""
        if self.poller.has_queue:
            self._run_from_queue(poll_interval, None)
        else:
            self._run_accept_loop(poll_interval, None)

    def serve_ready(self, most: int) -> None:
        """Serve up to `most` connections that are ready now, without waiting for others."""
        for _ in range(most):
            connection = self.poller.wait(0)
            if connection is None:
                return
            self._handle_connection(connection, connection.peer, None)

    def _run_accept_loop(self, poll_interval: float, runner: asyncio.Runner | None) -> None:
        """Poll and serve while this thread has a slot. `runner` is None where all is sync.

        Workers of event loops run the loops instead, the first of them in `runner`.
        """
        if self.pool.run_loops(poll_interval, runner):
            return
        schedule, slot = self.leader_follower, self.slot
        wait, handle = self.poller.wait, self._handle_connection
        while schedule.leader is slot:
            connection = wait(poll_interval)
            slot.events_taken += 1
            if schedule.deputy_asleep:
                schedule.wake()
            if connection is not None:
                handle(connection, connection.peer, runner)
        while schedule.eager and slot.seated:
            connection = wait(poll_interval)
            started = time.monotonic()
            if connection is not None:
                handle(connection, connection.peer, runner)
                if not schedule.always_eager:
                    schedule.observe(slot, time.monotonic() - started)

    def _run_from_queue(self, poll_interval: float, runner: asyncio.Runner | None) -> None:
        """`_run_accept_loop` for connections that a distributor puts into `conn_queue`."""
        self._run_accept_loop(poll_interval, runner)

    # ---- One connection -------------------------------------------------------------------

    def _handle_connection(
        self,
        conn: Connection | AnyTask | socket.socket,
        addr: tuple[str, int],
        runner: asyncio.Runner | None,
    ) -> None:
        """Serve `conn` until it must wait or is closed. No exception escapes.

        A bare socket is made a connection. A blocking one is served to its end.
        """
        if type(conn) is not Connection:
            if isinstance(conn, ThreadTask):
                self._run_task(conn)
                return
            conn = self._introduce(conn, addr)
        slot = self.slot
        slot.serving = conn
        try:
            self._handle_connection_impl(conn, addr, runner)
        except ClientDisconnected as error:
            finalize.client_gone(self, conn, str(error))
        except Exception:
            # a bug of threadwell costs this connection, and not the thread
            log.exception("A connection was dropped because of an internal error")
            if conn.state is not _CLOSED:
                finalize.close(self, conn, "internal error")
        finally:
            slot.serving = None

    def _run_task(self, task: AnyTask) -> None:
        self.slot.serving = task
        try:
            task.run(self)
        finally:
            self.slot.serving = None

    def _handle_connection_impl(
        self,
        conn: Connection | socket.socket,
        addr: tuple[str, int],
        runner: asyncio.Runner | None,
    ) -> bool:
        """Read, answer, and read on, while there is something to read.

        True: the connection was handed off to the asyncio side. Raises `ClientDisconnected`.
        """
        if type(conn) is not Connection:
            conn = self._introduce(conn, addr)
        before = conn.state
        if before is _IDLE:
            conn.state = _SERVING  # the commonest step of the table, without the call of `become`
        else:
            if before is not _SERVING:
                conn.become(_SERVING)
            if not handshake.resume(self, conn, before):
                return False
        answered = 0
        while True:
            head, body = self._recv_request_fast(conn)
            if head is None:
                if conn.state is _SERVING:
                    if conn.linger:
                        finalize.after_answer(self, conn)
                    elif conn.blocking:
                        continue
                    else:
                        finalize.park_unfinished(self, conn)
                return False
            # a context of its own, so that nothing a request sets is there for the next
            outcome = _new_context().run(self._exchange, self, conn, head, body)
            if outcome is not _NEXT:
                return outcome is not _ENDED and self._leave(outcome, runner)
            if not conn.buffer:
                if conn.blocking:
                    continue
                now = self.writer.now
                conn.state = _IDLE
                conn.deadline = now + self._keep_alive
                self.poller.park(conn, now)
                return False
            conn.deadline = self.writer.now + self._keep_alive
            answered += 1
            if answered == REQUESTS_PER_TURN and not conn.blocking:
                finalize.park(self, conn, State.YIELDED, self.config.timeouts.head)
                return False

    def _leave(self, outcome: Outcome, runner: asyncio.Runner | None) -> bool:
        """Whether the connection was handed off. One that has no loop yet is served here."""
        if outcome is not Outcome.HANDED_OFF:
            return False
        self.pool.serve_waiting(runner)
        return True

    def _introduce(self, sock: socket.socket, client: tuple[str, int]) -> Connection:
        connection = Connection(sock, client, address_of(sock.getsockname()))
        connection.blocking = sock.getblocking()
        self.poller.connections.add(connection)
        return connection

    # ---- In -------------------------------------------------------------------------------

    def _recv_request_fast(
        self, conn: Connection | socket.socket
    ) -> tuple[RequestReceived | None, bytes | BinaryIO]:
        """The next whole request of `conn`: its head and its body.

        (None, b"") while the request is not whole, and after an end of input or an error, which
        has been handled. What is buffered is parsed before more is received. A blocking socket is
        read until the request is whole.
        """
        if type(conn) is not Connection:
            conn = self._introduce(conn, ("", 0))
        try:
            if conn.buffer:
                data, conn.buffer = conn.buffer, b""
                return reader.split(self, conn, data)
            if conn.head is not None or conn.head_buffer is not None:
                return reader.recv_rest(self, conn)
            data = conn.recv(RECV_SIZE)
            if data == conn.repeated:
                # a client that polls sends the same octets each time
                return conn.repeated_head, b""
            # one head, as a rule: its parser finds out with less effort than a search for its end
            raw_head = data.removesuffix(b"\r\n\r\n")
            if raw_head is data:
                return reader.split(self, conn, data)
            try:
                head = self.parser.parse(raw_head)
            except EmptyLineError:
                return reader.split(self, conn, data)
            if head.content_length or head.chunked:
                return reader.recv_behind(self, conn, head)
            if len(data) <= LONGEST_REPEATED_HEAD:
                conn.repeated = data
                conn.repeated_head = head
            return head, b""
        except BlockingIOError:
            return None, b""
        except ProtocolError as error:
            message = error.message
            if conn.head_buffer is not None and conn.head_buffer.began_handshake():
                self.wrong_port.with_tls(conn.peer, conn.server)
                message = WITH_TLS
            finalize.answer_refusal(self, conn, error.status, message, error.limit)
            return None, b""
        except OSError as error:
            finalize.close(self, conn, f"lost: {error.strerror or error}")
            return None, b""

    # ---- What the application asks of its connection ----------------------------------------

    def open_stream(self, conn: Connection, request: Request, response: Response) -> PushedResponse:
        """See `Request.stream`."""
        return HTTP1Runner(self, conn, request).push(response)

    def inform(self, conn: Connection, request: Request, status: int, headers: HeaderList) -> None:
        """See `Request.inform`."""
        if not 102 <= status <= 199:
            raise ValueError(f"{status} is not the status of an interim response")
        if request.version == "1.1" and conn.stream_writer is None and conn.hijacked is None:
            self.writer.interim(conn, status, headers)

    def hijack(self, conn: Connection, request: Request) -> HijackedSocket:
        """See `Request.hijack`."""
        return HTTP1Runner(self, conn, request).hijack()

    # ---- Out ------------------------------------------------------------------------------

    def _cached_date_header(self) -> bytes | None:
        """The `Date` line, which is rendered at most once a second."""
        return self.writer.date_header()

    def _send_error(self, conn: Connection | socket.socket, status: int, message: str) -> None:
        """Answer with a line of text, the last answer of this connection, and let it linger."""
        if not isinstance(conn, Connection):
            conn = self._introduce(conn, ("", 0))
        finalize.refuse(self, conn, status, message)
