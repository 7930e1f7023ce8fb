"""A client that sends whatever bytes a test wants, and reads answers strictly."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field


@dataclass
class Answer:
    """A response as it came: `headers` in order with lower-case names, `body` without chunks."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    chunks: list[bytes] = field(default_factory=list)
    complete: bool = True

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None


class Client:
    """One connection. `send` raw bytes; `answer` reads one response, by its framing."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def get(self, target: str = "/", *, headers: str = "") -> Answer:
        self.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode("latin-1"))
        return self.answer()

    def answer(self, method: str = "GET") -> Answer:
        """The next response; `complete` is False when the connection ended within its body."""
        head = self._until(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        version, status, reason = status_line.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = [(k.lower(), v.strip()) for k, _, v in (line.partition(":") for line in lines)]
        answer = Answer(int(status), reason, headers)
        length, coding = answer.header("content-length"), answer.header("transfer-encoding")
        assert length is None or coding is None, "both framings"
        if method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
            return answer
        try:
            if coding == "chunked":
                self._read_chunks(answer)
            elif length is not None:
                answer.body = self._exactly(int(length))
            else:
                answer.body = self.rest()
        except EOFError as error:
            answer.complete = False
            answer.body += error.args[0]
        return answer

    def _read_chunks(self, answer: Answer) -> None:
        while True:
            size = int(self._until(b"\r\n"), 16)
            chunk = self._exactly(size)
            assert self._exactly(2) == b"\r\n"
            if not size:
                return
            answer.chunks.append(chunk)
            answer.body += chunk

    def rest(self) -> bytes:
        """Everything until the server closes the connection; a reset counts as that."""
        data, self._buffer = self._buffer, b""
        while True:
            try:
                received = self.sock.recv(65536)
            except ConnectionResetError:
                return data
            if not received:
                return data
            data += received

    def closed(self) -> bool:
        """Whether the server has closed, with nothing more sent."""
        return self.rest() == b""

    def close(self) -> None:
        self.sock.close()

    def octets(self, size: int) -> bytes:
        """What comes next, whatever it is."""
        return self._exactly(size)

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._receive()
        data, _, self._buffer = self._buffer.partition(end)
        return data

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._receive()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _receive(self) -> None:
        received = self.sock.recv(65536)
        if not received:
            data, self._buffer = self._buffer, b""
            raise EOFError(data)
        self._buffer += received


def refuses(port: int) -> bool:
    """Whether nobody listens there any more."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # it was about to be accepted when the socket was closed
    return False
