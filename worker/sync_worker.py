"""`SyncWorker`: a thread that serves requests, and the work it shares with its siblings.

    run
      _run_accept_loop | _run_from_queue      Poller.wait: an event becomes this thread's connection
        _handle_connection                    whatever happens in there costs one connection
          _handle_connection_impl             goes on where the connection stood
            _recv_request_fast                recv, RequestParser.parse, BodyReceiver
            exchange                          one request, one answer
              _classify_request               one look at the fields that steer the connection
              sync_app(request)               once
              ResponseWriter.answer           one send; the rest waits in the poller
              streaming.stream_body           a body that is being made: the thread is lent
            endings.park ...                  Poller.park: the connection is nobody's here any more

Threads: `run` makes a crew. All its workers share a poller, a rota and the configuration; parser,
writer and their caches belong to one worker, which is used by its own thread only. What is under
"Any thread" may be called from any thread, and speaks for the whole crew.
"""

from __future__ import annotations

import contextvars
import logging
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, cast

from .app_kind import bind_call, decline, is_asgi
from .assembly import check, make_loops, make_threads, with_files
from .config import ServerConfig
from .connection import Connection, State
from .errors import ClientDisconnected, ProtocolError
from .http.request_meta import _classify_request, _RequestMeta  # noqa: F401 - the reference has them here
from .http1.parser import RequestParser
from .http1.writer import Echo, ResponseWriter, StreamWriter
from .interfaces import ServingPool
from .lifecycle import (
    LifecycleCollector,
    RequestStarted,
    RequestWaited,
    ResponseCompleted,
    event_types_of,
    for_thread,
    guarded,
)
from .messages import IS_SIMPLE, ASGIApp, HeaderList, Request, RequestReceived, Response, SyncApp
from .net.bind import address_of
from .polling.base import ConnectionQueue
from .polling.task import ThreadTask
from .proxies.trust import Forwarding
from .request_id import request_ids
from .threads import finalize, handshake, reader, streaming
from .threads.exchange import exchange, exchange_forwarded
from .tls.context import context_for
from .tls.wrong_port import WITH_TLS, began_handshake

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Callable
    from typing import BinaryIO

    from .asgi.pool import HandoffPool
    from .hijack import HijackedSocket
    from .interfaces import AsyncPool
    from .threads.leader_follower import LeaderFollower

log = logging.getLogger("threadwell")

# A head up to this size is remembered with its connection, in case it comes again.
_LONGEST_REPEATED = 1024
# How many requests a connection may have pipelined before others get a turn.
_REQUESTS_A_TURN = 16

_new_context = contextvars.Context

_SERVING, _IDLE, _CLOSED = State.SERVING, State.IDLE, State.CLOSED


class SyncWorker:
    """Serves HTTP/1.1 on a thread, without an event loop; `run` hires siblings on more threads.

    `app` is a `SyncApp` or an ASGI application. They are told apart by inspection, unless
    `threadwell_interface` on the application decides. `sync_app` beside an ASGI `app` takes the
    requests first; upgrades, and what it answers with None, go to `async_pool`.

    `sock` is a listening socket, or None with `conn_queue`, which the caller fills with (socket,
    address) pairs. `ssl_context` replaces what `config.tls` describes. Setting `shutdown_event`
    stops `run` within a second. `lifecycle_collector` receives the events of `lifecycle`.

    An ASGI `app` without `sync_app` is served by event loops (`asgi.pool`): `run` makes its thread
    the first of them. `_handle_connection` hands over to them, or where none runs, serves on a loop
    of its own; its blocking socket is read like any other.

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
        self.worker_id = worker_id
        if config.static.mounts:
            app, sync_app = with_files(config.static, app, sync_app)
        # Of the server
        self.config = config
        self.app = app
        self.collector = guarded(lifecycle_collector)
        self.async_pool = async_pool
        if ssl_context is None:
            ssl_context = context_for(config)
        self._pool: ServingPool
        if sync_app is None and is_asgi(app):
            self.sync_app: SyncApp = decline
            self._pool = loops = make_loops(self, ssl_context, shutdown_event, conn_queue)
            self.async_pool = async_pool or loops
        else:
            self.sync_app = bind_call(cast("SyncApp", app) if sync_app is None else sync_app)
            self._pool = make_threads(self, ssl_context, shutdown_event, conn_queue)
        self._settle()
        if sock is not None:
            self._pool.listen(sock)

    def _settle(self) -> None:
        """What belongs to this worker's thread alone."""
        config = self.config
        self.poller = self._pool.poller
        #: Set by a crew of threads.
        self.leader_follower: LeaderFollower
        self.throttled_log = self._pool.throttled_log
        self.wrong_port = self._pool.wrong_port
        #: What trusted proxies say; None where none is trusted.
        self.forwarding: Forwarding | None = None
        self._exchange = exchange
        if config.proxies.trusted:
            self.forwarding = Forwarding(config.proxies, self.throttled_log)
            self._exchange = exchange_forwarded
        self.parser = RequestParser(config.limits)
        self.request_ids = request_ids(config)
        self.writer = (
            Echo(config.timeouts, config.log.request_id_header)
            if config.log.request_id_echo
            else ResponseWriter(config.timeouts)
        )
        #: Something is to be done for a request before the application sees it.
        self.watched = self.collector is not None or self.request_ids is not None
        looked_at = event_types_of(self.collector)
        #: What the collector has for this worker's thread, where there is one; see `settle_in`.
        self.completed: Callable[[ResponseCompleted], None]
        if self.collector is not None:
            self.completed = self.collector.record
        self.announcing = RequestStarted in looked_at
        self.sampling = RequestWaited in looked_at
        self._keep_alive = config.timeouts.keep_alive
        #: Whether a connection may stay open at all.
        self.persistent = self._keep_alive > 0
        #: For what adapters want to remember: see `messages.Channel`.
        self.notes: dict[Any, Any] = {}
        # `leader_follower.Seat`
        self.events_taken = 0
        self.serving: Connection | ThreadTask | None = None
        self.seated = False
        #: A long response has taken this thread's seat, and somebody else sits there.
        self.lost_seat = False
        #: This thread runs a long response, and has given its seat up for it.
        self.lent = False
        #: The asyncio side has adopted the connection.
        self.handed_off = False
        #: How many requests this worker has given to the application.
        self.served = 0
        self._pool.add(self)

    # ---- Any thread -----------------------------------------------------------------------

    def set_lifespan_state(self, state: dict[str, Any]) -> None:
        """Set the lifespan's state, shared with all requests that go to the asyncio side."""
        self._pool.lifespan_state = state

    @property
    def lifespan_state(self) -> dict[str, Any]:
        """What `set_lifespan_state` was given."""
        return self._pool.lifespan_state

    @property
    def http2_pool(self) -> HandoffPool | None:
        """The loops that have the connections of HTTP/2."""
        return self._pool.http2

    @property
    def shutdown_event(self) -> threading.Event:
        """Setting it stops `run`."""
        return self._pool.shutdown_event

    @property
    def pool(self) -> ServingPool:
        """What this worker shares with its siblings."""
        return self._pool

    def wait_until_ready(self) -> None:
        """Return when `run`, on another thread, serves. An ASGI application starts up first:
        raises `StartupError` when it says that it cannot."""
        self._pool.wait_until_ready()

    def start_draining(self) -> None:
        """Stop listening, now. Requests in flight finish and close; idle connections close."""
        self._pool.drain()

    def is_idle(self) -> bool:
        """Whether no connection is being handled: none is read, served, streamed or written to."""
        return self._pool.is_idle()

    def listen(self, sock: socket.socket, *, plain: bool = False) -> None:
        """Accept connections from `sock`, which listens, too; `plain` ones are without TLS."""
        self._pool.listen(sock, plain=plain)

    def use_context(self, ssl_context: ssl.SSLContext) -> None:
        """Begin the handshakes from now on with `ssl_context`; where there is no TLS none begins.

        Connections that are open keep what they have.
        """
        self._pool.use_context(ssl_context)

    def adopt_back(self, conn: Connection, let_go: Callable[[], object]) -> bool:
        """Serve the next request of `conn`, which was adopted before.

        `let_go` is called first, and must leave it IDLE or YIELDED. False, and nothing happens,
        where no more is served.
        """
        poller = self.poller
        poller.begin_return()  # before the look: whoever ends the server sees this, or is seen
        try:
            now = time.monotonic()
            if poller.draining and now >= poller.idle_until:
                return False
            let_go()
            conn.deadline = now + self._keep_alive
            conn.worker = None
            poller.adopt_back(conn, now)
        except (OSError, ClientDisconnected) as error:  # the server has ended meanwhile
            if conn.state is not _CLOSED:  # `close` may have seen it
                finalize.close(self, conn, f"lost: {error}")
        finally:
            poller.end_handoff()
        return True

    def shutdown(self, timeout: float, linger: float = 0.0) -> None:
        """Drain, for `timeout` seconds at most; then cut what is left, and make `run` return.

        Idle connections stay for another `linger` seconds, for a request that is on its way.
        """
        self._pool.shutdown(timeout, linger)

    def cut(self) -> None:
        """End every connection now, whatever it is at."""
        self._pool.cut()

    def stop(self) -> None:
        """Make `run` return when the threads are done with what they are at."""
        self._pool.stop()

    def run(self) -> None:
        """Serve until `stop` is called or `shutdown_event` is set (blocking).

        The calling thread serves, and hires the other threads of the configuration. Afterwards
        the poller is closed, and with it the listening socket.
        """
        self._pool.run(self)

    def close(self) -> None:
        """End every connection, close the listening sockets, and free the poller.

        `run` does it at its end: this is for a worker that is not run, or by other means.
        """
        self._pool.close(self)

    # ---- The crew -------------------------------------------------------------------------

    def settle_in(self) -> None:
        """Get what the calling thread needs, which is this worker's from now on."""
        if self.collector is not None:
            self.completed = for_thread(self.collector)

    def clone(self) -> SyncWorker:
        """A worker for another thread, which shares this one's crew."""
        clone = object.__new__(SyncWorker)
        for name in ("config", "app", "sync_app", "collector", "async_pool", "_pool"):
            setattr(clone, name, getattr(self, name))
        clone.worker_id = self.worker_id + self._pool.number()
        clone._settle()
        return clone

    def _run_accept_loop(self, poll_interval: float, runner: asyncio.Runner | None) -> None:
        """Poll and serve until this thread's turn ends. `runner` is None where all is sync."""
        self._pool.take_turn(self, poll_interval, runner)

    def _run_from_queue(self, poll_interval: float, runner: asyncio.Runner | None) -> None:
        """The same, with connections that a distributor puts into `conn_queue`."""
        self._pool.take_turn(self, poll_interval, runner)

    # ---- One connection -------------------------------------------------------------------

    def _handle_connection(
        self,
        conn: Connection | ThreadTask | socket.socket,
        addr: tuple[str, int],
        runner: asyncio.Runner | None,
    ) -> None:
        """Serve `conn` until it must wait or is closed. Nothing that happens in there escapes.

        A bare socket is made a connection; a blocking one is served to its end.
        """
        if type(conn) is not Connection:
            if isinstance(conn, ThreadTask):
                self._run_task(conn)
                return
            conn = self._introduce(conn, addr)
        self.serving = conn
        try:
            self._handle_connection_impl(conn, addr, runner)
        except ClientDisconnected as error:
            finalize.client_gone(self, conn, str(error))
        except Exception:
            # A bug of threadwell: this connection pays, the thread goes on.
            log.exception("A connection was dropped for an internal error")
            if conn.state is not _CLOSED:
                finalize.close(self, conn, "internal error")
        finally:
            self.serving = None

    def _run_task(self, task: ThreadTask) -> None:
        self.serving = task
        try:
            task.run(self)
        finally:
            self.serving = None

    def _handle_connection_impl(
        self,
        conn: Connection | socket.socket,
        addr: tuple[str, int],
        runner: asyncio.Runner | None,
    ) -> bool:
        """Read, answer, and read on, while there is something to read.

        Whether the connection was handed off to the asyncio side. Raises `ClientDisconnected`.
        """
        if type(conn) is not Connection:
            conn = self._introduce(conn, addr)
        before = conn.state
        if before is _IDLE:
            conn.state = _SERVING  # as `become` would, which need not be asked every time
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
            if not _new_context().run(self._exchange, self, conn, head, body):
                return self._is_gone(runner)
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
            if answered == _REQUESTS_A_TURN and not conn.blocking:
                finalize.park(self, conn, State.YIELDED, self.config.timeouts.head)
                return False

    def _is_gone(self, runner: asyncio.Runner | None) -> bool:
        """Whether the connection was handed off; where no loop has it yet, it is served here."""
        handed_off, self.handed_off = self.handed_off, False
        if handed_off:
            self._pool.serve_waiting(runner)
        return handed_off

    def _introduce(self, sock: socket.socket, client: tuple[str, int]) -> Connection:
        connection = Connection(sock, client, address_of(sock.getsockname()))
        connection.blocking = sock.getblocking()
        self.poller.connections.add(connection)
        return connection

    # ---- In -------------------------------------------------------------------------------

    def _recv_request_fast(
        self, conn: Connection | socket.socket
    ) -> tuple[RequestReceived | None, bytes | BinaryIO]:
        """The next whole request of `conn`, its head and its body.

        (None, b"") when it is not whole yet, and after an end of input or an error, which were
        dealt with. What is buffered is parsed before more is received; a blocking socket is read
        until the request is whole.
        """
        if type(conn) is not Connection:
            conn = self._introduce(conn, ("", 0))
        try:
            data = conn.buffer
            if not data:
                if conn.head is not None:
                    return reader.recv_body(self, conn)
                if conn.pieces is not None:
                    return reader.recv_head(self, conn)
                data = conn.recv(reader.RECEIVED_AT_ONCE)
                if data == conn.repeated:
                    # a client that polls sends the same octets each time
                    return conn.repeated_head, b""
                if not data:
                    finalize.close(self, conn, "closed by the client")
                    return None, b""
            raw_head, end, conn.buffer = data.partition(b"\r\n\r\n")
            if not end or not raw_head:
                conn.buffer = b""
                conn.pieces = bytearray(data)
                return reader.recv_head(self, conn)
            head = self.parser.parse(raw_head)
            if not head[IS_SIMPLE]:
                return reader.recv_behind(self, conn, head)
            if not conn.buffer and len(data) <= _LONGEST_REPEATED:
                conn.repeated = data
                conn.repeated_head = head
            return head, b""
        except BlockingIOError:
            return None, b""
        except ProtocolError as error:
            message = error.message
            if conn.pieces is not None and began_handshake(conn.pieces):
                self.wrong_port.with_tls(conn)
                message = WITH_TLS
            finalize.answer_refusal(self, conn, error.status, message)
            return None, b""
        except OSError as error:
            finalize.close(self, conn, f"lost: {error.strerror or error}")
            return None, b""

    # ---- What the application asks of its connection ----------------------------------------

    def open_stream(self, conn: Connection, request: Request, response: Response) -> StreamWriter:
        """See `Request.stream`."""
        return streaming.open_stream(self, conn, request, response)

    def inform(self, conn: Connection, request: Request, status: int, headers: HeaderList) -> None:
        """See `Request.inform`."""
        if not 102 <= status <= 199:
            raise ValueError(f"{status} is not the status of an interim response")
        if request.version == "1.1" and conn.stream_writer is None and conn.hijacked is None:
            self.writer.interim(conn, status, headers)

    def hijack(self, conn: Connection, request: Request) -> HijackedSocket:
        """See `Request.hijack`."""
        return streaming.hijack(self, conn, request)

    # ---- Out ------------------------------------------------------------------------------

    def _cached_date_header(self) -> bytes | None:
        """The `Date` line, made anew at most once a second."""
        return self.writer.date_header()

    def _send_error(self, conn: Connection | socket.socket, status: int, message: str) -> None:
        """Answer with a line of text, the last answer of this connection, and let it linger."""
        if not isinstance(conn, Connection):
            conn = self._introduce(conn, ("", 0))
        finalize.refuse(self, conn, status, message)
