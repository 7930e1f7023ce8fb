"""h2 as the oracle of the server's framing, and both behind the same interface.

A `Side` takes octets from a client and notes what they mean: ("request", number, fields, ended),
("data", number, data, size), ("trailers", number, fields, ended), ("ended", number),
("reset", number), ("window", number) and ("ping", data).
"""

from __future__ import annotations

from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import h2.stream
from hyperframe.frame import Frame

from threadwell.worker.config import ServerConfig
from threadwell.worker.http2.frames import HTTP2ConnectionError
from threadwell.worker.http2.framing import Framing
from threadwell.worker.http2.hpack import FieldDecoder, FieldEncoder
from threadwell.worker.http2.settings import STREAM_WINDOW, WINDOW, largest_list, own_settings

Fields = list[tuple[bytes, bytes]]
Note = tuple[Any, ...]


def frames_of(data: bytes) -> list[tuple[str, int, bytes]]:
    """The type, the stream and the payload of each frame in `data`."""
    frames = []
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        frames.append((type(frame).__name__, frame.stream_id, data[9 : 9 + length]))
        data = data[9 + length :]
    return frames


class OurSide:
    """`Framing`, which notes what it tells."""

    def __init__(self, config: ServerConfig) -> None:
        self.framing = Framing(config)
        self.framing.data_to_send()
        self.notes: list[Note] = []
        self.message = ""

    def receive(self, data: bytes) -> int | None:
        """Take octets; the code of the connection error that they are, if they are one."""
        try:
            for frame in self.framing.frames(data, 0.0):
                self.framing.receive(frame, self)
        except HTTP2ConnectionError as error:
            self.message = str(error)
            return error.code
        return None

    def sent(self) -> list[tuple[str, int, bytes]]:
        """The frames to send."""
        return frames_of(self.framing.data_to_send())

    # ---- `FrameListener` --------------------------------------------------------------------

    def request_received(self, number: int, fields: Fields, *, ended: bool) -> None:
        self.notes.append(("request", number, fields, ended))

    def data_received(self, number: int, data: bytes, size: int) -> None:
        self.notes.append(("data", number, data, size))

    def trailers_received(self, number: int, fields: Fields, *, ended: bool) -> None:
        self.notes.append(("trailers", number, fields, ended))

    def stream_ended(self, number: int) -> None:
        self.notes.append(("ended", number))

    def stream_reset(self, number: int) -> None:
        self.notes.append(("reset", number))

    def window_opened(self, number: int) -> None:
        self.notes.append(("window", number))

    def ping_acknowledged(self, data: bytes) -> None:
        self.notes.append(("ping", data))


class _Stream(h2.stream.H2Stream):
    """A stream that checks no fields, as `request_head` does it."""

    def receive_headers(self, headers: Any, end_stream: bool, header_encoding: Any) -> Any:
        inputs = h2.stream.StreamInputs
        events: list[Any] = self.state_machine.process_input(inputs.RECV_HEADERS)
        events[0].headers = headers
        if end_stream:
            ended = self.state_machine.process_input(inputs.RECV_END_STREAM)
            events[0].stream_ended = ended[0]
            events += ended
        return [], events


class _H2(h2.connection.H2Connection):
    """The server's side by h2, with the settings of `Framing`."""

    @property
    def open_inbound_streams(self) -> int:
        return 0

    def _begin_new_stream(self, *arguments: Any) -> h2.stream.H2Stream:
        stream = super()._begin_new_stream(*arguments)
        stream.__class__ = _Stream
        return stream


class H2Side:
    """h2, which notes its events."""

    def __init__(self, config: ServerConfig) -> None:
        self.conn = conn = _H2(
            h2.config.H2Configuration(
                client_side=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        initial: Any = {
            h2.settings.SettingCodes(code): value for code, value in own_settings(config)
        }
        assert initial[h2.settings.SettingCodes.INITIAL_WINDOW_SIZE] == STREAM_WINDOW
        conn.local_settings = h2.settings.Settings(client=False, initial_values=initial)
        conn.decoder = FieldDecoder(largest_list(config))
        conn.encoder = FieldEncoder()
        conn.initiate_connection()
        conn.increment_flow_control_window(WINDOW - 65535)
        conn.data_to_send()
        self.notes: list[Note] = []

    def receive(self, data: bytes) -> int | None:
        """Take octets; the code of the connection error that they are, if they are one."""
        try:
            for event in self.conn.receive_data(data):
                self._note(event)
        except h2.exceptions.ProtocolError as error:
            self.conn.data_to_send()  # with its GOAWAY
            return int(error.error_code)
        return None

    def sent(self) -> list[tuple[str, int, bytes]]:
        """The frames to send."""
        return frames_of(self.conn.data_to_send())

    def _note(self, event: Any) -> None:
        events = h2.events
        number = getattr(event, "stream_id", 0)
        if isinstance(event, events.RequestReceived):
            self.notes.append(("request", number, event.headers, event.stream_ended is not None))
        elif isinstance(event, events.DataReceived):
            self.notes.append(("data", number, event.data, event.flow_controlled_length))
        elif isinstance(event, events.TrailersReceived):
            self.notes.append(("trailers", number, event.headers, event.stream_ended is not None))
        elif isinstance(event, events.StreamEnded):
            if not (self.notes and self.notes[-1][:2] == ("request", number)):
                self.notes.append(("ended", number))
        elif isinstance(event, events.StreamReset):
            self.notes.append(("reset", number))
        elif isinstance(event, events.WindowUpdated):
            self.notes.append(("window", number))
        elif isinstance(event, events.RemoteSettingsChanged):
            if h2.settings.SettingCodes.INITIAL_WINDOW_SIZE in event.changed_settings:
                self.notes.append(("window", 0))
        elif isinstance(event, events.PingAckReceived):
            self.notes.append(("ping", event.ping_data))
