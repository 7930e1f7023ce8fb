"""A client of HTTP/2 for tests, on a blocking socket: it can also do what clients must not."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import hpack
from hyperframe.frame import ContinuationFrame, Frame, HeadersFrame

Fields = list[tuple[bytes | str, bytes | str]]


class Answer:
    """What came on a stream."""

    def __init__(self) -> None:
        self.interim: list[dict[str, str]] = []
        self.headers: dict[str, str] = {}
        self.fields: list[tuple[str, str]] = []
        self.octets = bytearray()
        self.trailers: dict[str, str] = {}
        self.ended = False
        #: The code of a reset.
        self.reset: int | None = None

    @property
    def status(self) -> int:
        return int(self.headers.get(":status", 0))

    @property
    def body(self) -> bytes:
        return bytes(self.octets)

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None


class Http2Client:
    """One connection."""

    def __init__(
        self, port: int, context: ssl.SSLContext, *, read: bool = True, timeout: float = 10
    ) -> None:
        raw = socket.create_connection(("127.0.0.1", port), timeout)
        context.set_alpn_protocols(["h2", "http/1.1"])
        with contextlib.ExitStack() as unless_connected:
            unless_connected.callback(raw.close)
            self.sock = context.wrap_socket(raw, server_hostname="127.0.0.1")
            unless_connected.pop_all()
        #: The server has closed, and what it said before is still to be read.
        self.mute = False
        self.conn = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                header_encoding="latin-1",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.conn.initiate_connection()
        self.conn.increment_flow_control_window(2**24)
        self.answers: dict[int, Answer] = defaultdict(Answer)
        self.goaways: list[tuple[int, int]] = []
        self.closed = False
        self.pongs = 0
        self.acknowledges = read
        with contextlib.suppress(OSError):  # what the server has said is still there
            self.flush()

    # ---- Out ------------------------------------------------------------------------------

    def flush(self) -> None:
        data = self.conn.data_to_send()
        if not self.mute:
            self.send(data)

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError:
            self.mute = True
            raise

    def frames(self, *frames: Frame) -> None:
        """Send frames past h2, behind what it has."""
        self.send(self.conn.data_to_send() + b"".join(frame.serialize() for frame in frames))

    def get(self, path: str = "/", *more: tuple[str, str], method: str = "GET") -> int:
        return self.request(path, more, method=method)

    def request(
        self,
        path: str = "/",
        more: Iterable[tuple[str, str]] = (),
        *,
        method: str = "GET",
        body: bytes | None = None,
        ended: bool = True,
    ) -> int:
        """Begin a request; a body that is larger than the windows is sent as they open."""
        fields: Any = [
            (":method", method),
            (":scheme", "https"),
            (":authority", "127.0.0.1"),
            (":path", path),
            *more,
        ]
        number = self.conn.get_next_available_stream_id()
        self.conn.send_headers(number, fields, end_stream=body is None and ended)
        self.flush()
        if body is not None:
            self.body(number, body, ended=ended)
        return number

    def body(self, number: int, body: bytes, *, ended: bool = True) -> None:
        view = memoryview(body)
        while view:
            room = min(
                self.conn.local_flow_control_window(number), self.conn.max_outbound_frame_size
            )
            if room <= 0:
                if self.answers[number].over or self.closed:
                    return
                self.receive()
                continue
            block, view = view[:room], view[room:]
            try:
                self.conn.send_data(number, bytes(block), end_stream=ended and not view)
            except h2.exceptions.StreamClosedError:
                return
            self.flush()
        if not body and ended:
            self.conn.end_stream(number)
            self.flush()

    def raw_head(self, fields: Fields, *, number: int = 0, ended: bool = True) -> int:
        """A head whose fields nobody checks."""
        number = number or self.conn.get_next_available_stream_id()
        # h2 must know of the stream, and not of the fields
        self.conn.send_headers(number, [(":method", "GET")], end_stream=ended)
        self.conn.data_to_send()
        self.conn.encoder = hpack.Encoder()
        data = hpack.Encoder().encode([_never_indexed(pair) for pair in fields])
        frames: list[Frame] = []
        for at in range(0, len(data), 16384):
            kind = ContinuationFrame if at else HeadersFrame
            frames.append(kind(number, data[at : at + 16384]))
        frames[-1].flags.add("END_HEADERS")
        if ended:
            frames[0].flags.add("END_STREAM")
        self.frames(*frames)
        return number

    def head_in_pieces(self, pieces: int, size: int = 1) -> None:
        """The beginning of a head that has no end."""
        begin = HeadersFrame(self.conn.get_next_available_stream_id())
        begin.data = b""
        frames: list[Frame] = [begin]
        for _ in range(pieces):
            frame = ContinuationFrame(begin.stream_id)
            frame.data = b"\0" * size
            frames.append(frame)
        self.frames(*frames)

    # ---- In -------------------------------------------------------------------------------

    def receive(self) -> None:
        """Take what comes next."""
        try:
            data = self.sock.recv(65536)
        except (ConnectionError, ssl.SSLError):
            data = b""
        if not data:
            self.closed = True
            return
        for event in self.conn.receive_data(data):
            self._note(event)
        with contextlib.suppress(OSError):
            self.flush()

    def _note(self, event: Any) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            assert event.error_code is not None
            assert event.last_stream_id is not None
            self.goaways.append((int(event.error_code), event.last_stream_id))
            # h2 would refuse to go on, which a client may
            self.conn.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN
            return
        if isinstance(event, h2.events.PingAckReceived):
            self.pongs += 1
        number = getattr(event, "stream_id", None)
        if not number:
            return
        answer = self.answers[number]
        if isinstance(event, h2.events.InformationalResponseReceived):
            answer.interim.append(dict(event.headers))  # type: ignore[arg-type]
        elif isinstance(event, h2.events.ResponseReceived):
            answer.fields = list(event.headers)  # type: ignore[arg-type]
            answer.headers = dict(answer.fields)
        elif isinstance(event, h2.events.DataReceived):
            answer.octets += event.data
            if self.acknowledges:
                self.conn.acknowledge_received_data(event.flow_controlled_length, number)
        elif isinstance(event, h2.events.TrailersReceived):
            answer.trailers = dict(event.headers)  # type: ignore[arg-type]
        elif isinstance(event, h2.events.StreamEnded):
            answer.ended = True
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = int(event.error_code)

    def until(self, condition: Callable[[], Any]) -> None:
        """Receive until `condition` holds; fails when the connection ends before."""
        while not condition():
            assert not self.closed, (self.goaways, self.answers)
            self.receive()

    def answer(self, number: int) -> Answer:
        """The whole answer on a stream, or its reset."""
        self.until(lambda: self.answers[number].over)
        return self.answers[number]

    def fetch(self, path: str = "/", *more: tuple[str, str], **options: Any) -> Answer:
        return self.answer(self.request(path, more, **options))

    def end(self) -> list[tuple[int, int]]:
        """Receive until the server closes; the codes and last streams of its GOAWAYs."""
        while not self.closed:
            self.receive()
        return self.goaways

    def settle(self) -> None:
        """Wait until the server has seen all that was sent."""
        pongs = self.pongs
        self.conn.ping(b"settled?")
        self.flush()
        self.until(lambda: self.pongs > pongs)

    def close(self) -> None:
        self.sock.close()


def _never_indexed(pair: tuple[bytes | str, bytes | str]) -> Any:
    return hpack.NeverIndexedHeaderTuple(*pair)
