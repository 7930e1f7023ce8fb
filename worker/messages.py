"""What travels between the wire and an application: types, and no behaviour of their own.

Text is `str` in Latin-1, one character a byte, as PEP 3333 has it: nothing is lost or guessed.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

if TYPE_CHECKING:
    from .hijack import HijackedSocket

#: A peer: host and port of TCP; the path (or an empty text) and 0 of a unix socket.
Address = tuple[str, int]

HeaderList = Sequence[tuple[str, str]]


class RequestReceived(NamedTuple):
    """The head of a request, checked. Built by `http1`; nothing changes it afterwards.

    `target` is as sent; `path` and `query` are its undecoded parts, `query` without the `?`.
    `block` is the version and the header lines as received, CRLF between. `variables` has each
    field once, under its CGI name (RFC 3875, 4.1.18: `HTTP_ACCEPT`, `CONTENT_TYPE`), repeated
    values joined with `, `, those of cookies with `; `; a name with an underscore is not in it,
    for it would pass for the one with a dash. The authority of an absolute-form target replaces
    Host (RFC 9112, 3.2.2).
    `content_length` is None where the client declared none; with `chunked` it is always None.
    `is_simple` says that nothing is special about it: HTTP/1.1, not HEAD, and no field steers the
    connection, so that it has no body, asks for no upgrade, and persists.
    """

    method: str
    target: str
    path: str
    query: str
    version: str
    block: bytes
    variables: dict[str, str]
    content_length: int | None = None
    chunked: bool = False
    is_simple: bool = False

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Names, lower-case, and values of the header lines, in the order received."""
        _, *lines = self.block.decode("latin-1").split("\r\n")
        split = (line.partition(":") for line in lines)
        return [(name.lower(), value.strip(" \t")) for name, _, value in split]

    def field(self, name: str) -> str:
        """The value of the field `name`, repeated ones joined; empty if there is none."""
        return self.variables.get(cgi_name(name), "")


#: Where `RequestReceived.is_simple` is. Access by name costs three times as much, and every request
#: asks for it several times.
IS_SIMPLE = RequestReceived._fields.index("is_simple")

#: The constructor of a named tuple, without the Python function that `NamedTuple` puts around it.
new_tuple = tuple.__new__


def cgi_name(name: str) -> str:
    """The name under which CGI has the field `name`, which is a token without underscores."""
    variable = name.upper().replace("-", "_")
    return variable if variable in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + variable


@dataclass(slots=True)
class FileBody:
    """A response body in a file that the kernel can send: `count` bytes from `offset` of `fd`.

    The worker owns `fd` and closes it when the bytes are out or the client is gone.
    """

    fd: int
    offset: int
    count: int


#: `bytes`, or a list of them, is sent at once. Any other iterable is a stream: each block is on
#: the wire before the next is asked for, and its `close()`, if it has one, is called exactly once.
#: An asynchronous iterable is streamed by the event loop of a hybrid, and of no use without one.
Body = bytes | list[bytes] | FileBody | Iterable[bytes] | AsyncIterable[bytes]


class Response(NamedTuple):
    """The answer to a request.

    `status` is a number, or a number and a reason, such as `418 I'm a teapot`.
    `headers` keep their order and repetitions. `Date`, `Server`, and whatever frames the body are
    the server's business: they may be left out. A declared `Content-Length` is held to.
    `close`, if given, is called exactly once when the body needs no more of the application: on
    the thread that ran it, after an error and after the client has left too. Behind an asynchronous
    body it is another thread.
    `revise`, if given, is asked for the status and the headers again when the first block of a
    stream is there, for applications that may change their mind until then (PEP 3333).
    """

    status: int | str
    headers: HeaderList = ()
    body: Body = b""
    close: Callable[[], object] | None = None
    revise: Callable[[], tuple[int | str, HeaderList]] | None = None

    @property
    def code(self) -> int:
        """The status as a number. Raises `ValueError` where there is none."""
        return self.status if isinstance(self.status, int) else int(self.status[:3])


class ResponseStream(Protocol):
    """A response under way, its head sent or about to be."""

    def write(self, block: bytes) -> None:
        """Send `block`; returns when the kernel has it. Raises `ClientDisconnected`."""


class Channel(Protocol):
    """What an application can do with the connection of its request. The worker implements it."""

    scheme: str
    #: For whom the request comes, which a trusted proxy may have said.
    client: Address
    #: Who is at the other end of the connection.
    peer: Address
    #: What a trusted proxy has cut from the beginning of the path; no slash at its end.
    prefix: str
    #: One object for all connections of a listener, or what a proxy says in its place, of one
    #: scheme and prefix; where clients are asked for certificates, one for each connection. So an
    #: adapter may keep by it what is the same for them.
    server: Address
    #: The port of `client` as text.
    client_port: str
    #: For what an adapter wants to remember: belongs to the serving thread, keyed by the adapter.
    #: What has a `close` is closed on that thread when it ends.
    notes: dict[Any, Any]

    @property
    def headers_sent(self) -> bool: ...

    @property
    def tls(self) -> dict[str, str]: ...

    def stream(self, request: Request, response: Response) -> ResponseStream: ...

    def inform(self, request: Request, status: int, headers: HeaderList) -> None: ...

    def hijack(self, request: Request) -> HijackedSocket: ...


class Request(NamedTuple):
    """A request that is wholly there, as a `SyncApp` gets it.

    `body` is `bytes` when it is small, else an open binary file at its start. The file belongs to
    the request: it is gone when the response is. One thread uses a request at a time.
    """

    head: RequestReceived
    body: bytes | BinaryIO = b""
    channel: Channel | None = None

    @property
    def method(self) -> str:
        """The method, its case as sent."""
        return self.head.method

    @property
    def target(self) -> str:
        """The request target as sent."""
        return self.head.target

    @property
    def path(self) -> str:
        """The target's path, still percent-encoded."""
        return self.head.path

    @property
    def query(self) -> str:
        """The target's query string, without the `?`."""
        return self.head.query

    @property
    def version(self) -> str:
        """`1.1` or `1.0`."""
        return self.head.version

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Names (lower-case) and values, in the order received."""
        return self.head.headers

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return self._the_channel().scheme

    @property
    def client(self) -> Address:
        """The client's address: the peer's, or what a trusted proxy says. ("", 0): unknown."""
        return self._the_channel().client

    @property
    def peer(self) -> Address:
        """The address at the other end of the connection, a proxy's if there is one."""
        return self._the_channel().peer

    @property
    def prefix(self) -> str:
        """What a trusted proxy has cut from the beginning of the path, such as `/api`."""
        return self._the_channel().prefix

    @property
    def server(self) -> Address:
        """The address that the request came in on, or was sent to at a trusted proxy."""
        return self._the_channel().server

    @property
    def tls(self) -> dict[str, str]:
        """The TLS session, in the variables of mod_ssl; see docs/tls.md. Empty without TLS."""
        return self._the_channel().tls

    @property
    def headers_sent(self) -> bool:
        """Whether the head of the answer is on the wire, so that no other can be given."""
        return self.channel is not None and self.channel.headers_sent

    def header(self, name: str, default: str = "") -> str:
        """The value of the header `name` (any case), repeated ones joined; else `default`."""
        return self.head.variables.get(cgi_name(name), default)

    def read(self) -> bytes:
        """The whole body, in memory."""
        if isinstance(self.body, bytes):
            return self.body
        self.body.seek(0)
        return self.body.read()

    def stream(self, response: Response) -> ResponseStream:
        """Begin `response` now and push its body: for applications that write instead of return.

        The body of the `Response` that the application then returns follows what was pushed; its
        status and headers have gone. Raises `StreamLimitError` when too many streams are open.
        """
        return self._the_channel().stream(self, response)

    def inform(self, status: int, headers: HeaderList) -> None:
        """Send an interim response, such as 103 with `Link` headers, ahead of the answer.

        Nothing is sent to HTTP/1.0 clients, or once the answer has begun. Raises `ValueError` for
        a status that is not 102 to 199 and for headers that cannot go on the wire.
        """
        self._the_channel().inform(self, status, headers)

    def hijack(self) -> HijackedSocket:
        """Take the connection out of the server's hands: a blocking socket for the application.

        What the application returns afterwards is ignored. Bytes that the client had sent behind
        the request are read first. Raises `StreamLimitError` when too many streams are open.
        """
        return self._the_channel().hijack(self)

    def _the_channel(self) -> Channel:
        if self.channel is None:
            raise RuntimeError("this request did not come from a connection")
        return self.channel


#: An application without an event loop. None says: this request is not mine, hand it to ASGI.
SyncApp = Callable[[Request], Response | None]

#: An ASGI 3 application.
ASGIApp = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[MutableMapping[str, Any]]],
        Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ],
    Awaitable[None],
]


class Origin(NamedTuple):
    """For whom a request comes, and how it was asked for.

    `prefix` is what a proxy has cut from the path. `trusted` says whether what is written about
    others is believed, which holds for the origin of a connection alone.
    """

    client: Address
    client_port: str
    server: Address
    scheme: str
    prefix: str = ""
    trusted: bool = False
