"""What passes between the wire and an application: types without behaviour.

Text is `str` in Latin-1, one character for each byte, as PEP 3333 has it: nothing is lost or
guessed.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

if TYPE_CHECKING:
    from .hijack import HijackedSocket


#: A peer: host and port of TCP; the path (or an empty text) and 0 of a unix socket.
Address = tuple[str, int]

HeaderList = Sequence[tuple[str, str]]


class CommonFields:
    """Fields that many heads have in common, with the same values. Compared by identity.

    `variables` are theirs, as in `RequestReceived`. An adapter may keep what it derives from them
    for this object. Nothing changes it, and no credential is in it.
    """

    __slots__ = ("variables",)

    def __init__(self, variables: dict[str, str]) -> None:
        self.variables = variables


#: Nothing is known to be in common with other heads.
NOTHING_COMMON = CommonFields({})


class RequestReceived:
    """The head of a request, checked. The parser builds it; nothing changes it afterwards.

    `target` is as sent; `path` and `query` are its undecoded parts, `query` without the `?`.
    `block` is the version and the field lines as received, with CRLF between them. `variables` has
    each field once, under its CGI name (RFC 3875, 4.1.18: `HTTP_ACCEPT`, `CONTENT_TYPE`). Repeated
    values are joined with `, `, those of cookies with `; `. A name with an underscore is left out:
    it could not be told from the one with a dash. The authority of an absolute-form target
    replaces Host (RFC 9112, 3.2.2).
    `content_length` is None where the client declared none; with `chunked` it is always None.
    `is_simple`: HTTP/1.1, not HEAD, without a body, without an upgrade, on a connection that stays
    open. `stays_open`: HTTP/1.1, without a field that affects the connection, or a default one.
    `own` are the variables that are not those of `common`.

    Heads are compared, indexed and unpacked as the tuple of the arguments up to `is_simple`.
    """

    # This and the following are not named tuples, whose fields take three times as long to read.
    # They have an `__init__` of their own and no slots: that of a dataclass is slow where defaults
    # are attributes of the class, and so is every one with slots (CPython 3.13).
    def __init__(
        self,
        method: str,
        target: str,
        path: str,
        query: str,
        version: str,
        block: bytes,
        variables: dict[str, str],
        content_length: int | None = None,
        chunked: bool = False,
        is_simple: bool = False,
        stays_open: bool = False,
        common: CommonFields = NOTHING_COMMON,
    ) -> None:
        self.method = method
        self.target = target
        self.path = path
        self.query = query
        self.version = version
        self.block = block
        self.own = variables
        self.content_length = content_length
        self.chunked = chunked
        self.is_simple = is_simple
        self.stays_open = stays_open
        self.common = common

    @property
    def variables(self) -> dict[str, str]:
        """All variables; they are merged when somebody asks for them."""
        if self.common is not NOTHING_COMMON:
            # in this order, for a thread that reads both meanwhile
            self.own = self.common.variables | self.own
            self.common = NOTHING_COMMON
        return self.own

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Names, lower-case, and values of the header lines, in the order received."""
        _, *lines = self.block.decode("latin-1").split("\r\n")
        split = (line.partition(":") for line in lines)
        return [(name.lower(), value.strip(" \t")) for name, _, value in split]

    def variable(self, name: str, default: str = "") -> str:
        """The variable `name`; `default` if there is none."""
        common = self.common  # before `own`: see `variables`
        value = self.own.get(name)
        return common.variables.get(name, default) if value is None else value

    def field(self, name: str) -> str:
        """The value of the field `name`, repeated ones joined; empty if there is none."""
        return self.variable(cgi_name(name))

    def with_fields(self, block: bytes, variables: dict[str, str]) -> RequestReceived:
        """The same head with other fields, none of which frames the body or affects the
        connection."""
        return RequestReceived(
            self.method,
            self.target,
            self.path,
            self.query,
            self.version,
            block,
            variables,
            self.content_length,
            self.chunked,
            self.is_simple,
            self.stays_open,
            NOTHING_COMMON,
        )

    def _replace(self, **changes: Any) -> RequestReceived:
        """The same head with other arguments."""
        same = dict(zip(_HEAD_FIELDS, self[:], strict=True), stays_open=self.stays_open)
        return RequestReceived(**{**same, **changes})

    def __getitem__(self, index: Any) -> Any:
        return tuple([getattr(self, name) for name in _HEAD_FIELDS])[index]

    def __eq__(self, other: object) -> bool:
        return self[:] == other[:] if isinstance(other, RequestReceived) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        said = [f"{name}={getattr(self, name)!r}" for name in _HEAD_FIELDS]
        return f"RequestReceived({', '.join(said)})"


_HEAD_FIELDS = (
    "method target path query version block variables content_length chunked is_simple"
).split()


def cgi_name(name: str) -> str:
    """The CGI variable of the field `name`, which is a token without underscores."""
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


#: `bytes`, or a list of them, are sent at once. Any other iterable is a stream: each block is on
#: the wire before the next is requested, and its `close()`, if it has one, is called exactly once.
#: An asynchronous iterable is streamed by the event loop of a hybrid; without one it is a 501.
Body = bytes | list[bytes] | FileBody | Iterable[bytes] | AsyncIterable[bytes]


@dataclass(init=False)
class Response:
    """The answer to a request.

    `status` is a number, or a number and a reason, such as `418 I'm a teapot`.
    `headers` keep their order and repetitions. The server adds `Date`, `Server`, and the fields
    that frame the body; they may be left out. It enforces a declared `Content-Length`.
    `close`, if given, is called exactly once when the body needs nothing more of the application,
    also after an error and after the client has left. It is called on the thread that ran the
    application; for an asynchronous body on the loop's.
    `revise`, if given, returns status and headers again once the first block of a stream has been
    made: a WSGI application may change them until then (PEP 3333).
    """

    status: int | str
    headers: HeaderList
    body: Body
    close: Callable[[], object] | None
    revise: Callable[[], tuple[int | str, HeaderList]] | None

    def __init__(
        self,
        status: int | str,
        headers: HeaderList = (),
        body: Body = b"",
        close: Callable[[], object] | None = None,
        revise: Callable[[], tuple[int | str, HeaderList]] | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.close = close
        self.revise = revise

    def _replace(self, **changes: Any) -> Response:
        """The same response with other arguments."""
        return Response(**{**vars(self), **changes})

    @property
    def code(self) -> int:
        """The status as a number. Raises `ValueError` where there is none."""
        code = _CODES.get(self.status)
        return int(str(self.status)[:3]) if code is None else code


# The codes of common statuses as they are written: parsing takes several times as long.
_CODES = {
    written: int(status)
    for status in HTTPStatus
    for written in (int(status), f"{int(status)} {status.phrase}")
}


class ResponseStream(Protocol):
    """A response under way, its head sent or about to be."""

    def write(self, block: bytes) -> None:
        """Send `block`; returns when the kernel has it. Raises `ClientDisconnected`."""


@dataclass(init=False)
class Origin:
    """The client of a request, and the server that it was sent to. Not changed once it is made.

    `client_port` is the port of `client` as text. `server` is one object for all connections of a
    listener, or for all requests for which a proxy reports the same server, scheme and prefix; with
    client certificates there is one for each connection. So an adapter may cache by its identity
    what these requests have in common. `prefix` is what a trusted proxy has cut from the beginning
    of the path, without a slash at its end. `trusted` says whether the peer is a trusted proxy; it
    has a meaning only in the origin of a connection.
    """

    client: Address
    client_port: str
    server: Address
    scheme: str
    prefix: str
    trusted: bool

    def __init__(
        self,
        client: Address,
        client_port: str,
        server: Address,
        scheme: str,
        prefix: str = "",
        trusted: bool = False,
    ) -> None:
        self.client = client
        self.client_port = client_port
        self.server = server
        self.scheme = scheme
        self.prefix = prefix
        self.trusted = trusted


class Channel(Protocol):
    """What an application can do with the connection of its request. The worker implements it."""

    #: The client of the request, which a trusted proxy may have reported.
    origin: Origin
    #: The address at the other end of the connection.
    peer: Address
    #: For what an adapter wants to remember. It belongs to the serving thread and is keyed by the
    #: adapter. Values that have a `close` are closed on that thread when it ends.
    notes: dict[Any, Any]

    @property
    def headers_sent(self) -> bool: ...

    @property
    def tls(self) -> dict[str, str]: ...

    def stream(self, request: Request, response: Response) -> ResponseStream: ...

    def inform(self, request: Request, status: int, headers: HeaderList) -> None: ...

    def hijack(self, request: Request) -> HijackedSocket: ...


@dataclass(init=False)
class Request:
    """A request that has arrived in full, as a `SyncApp` gets it.

    `body` is `bytes` when it is small, else an open binary file at its start. The file belongs to
    the request: it is gone when the response is. One thread uses a request at a time.
    """

    head: RequestReceived
    body: bytes | BinaryIO
    channel: Channel | None

    def __init__(
        self, head: RequestReceived, body: bytes | BinaryIO = b"", channel: Channel | None = None
    ) -> None:
        self.head = head
        self.body = body
        self.channel = channel

    def _replace(self, **changes: Any) -> Request:
        """The same request with other arguments."""
        return Request(**{**vars(self), **changes})

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
        """`1.1` or `1.0`, and `2` over HTTP/2."""
        return self.head.version

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Names (lower-case) and values, in the order received."""
        return self.head.headers

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return self._the_channel().origin.scheme

    @property
    def client(self) -> Address:
        """The client's address, from the peer or a trusted proxy; ("", 0) if unknown."""
        return self._the_channel().origin.client

    @property
    def peer(self) -> Address:
        """The address at the other end of the connection, a proxy's if there is one."""
        return self._the_channel().peer

    @property
    def prefix(self) -> str:
        """What a trusted proxy has cut from the beginning of the path, such as `/api`."""
        return self._the_channel().origin.prefix

    @property
    def server(self) -> Address:
        """The address that the request came in on, or was sent to at a trusted proxy."""
        return self._the_channel().origin.server

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
        return self.head.variable(cgi_name(name), default)

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
        """Take the connection over: the result is a blocking socket for the application.

        The server ignores what the application returns afterwards. The socket gives bytes that the
        client had sent behind the request first. Raises `StreamLimitError` when too many streams
        are open.
        """
        return self._the_channel().hijack(self)

    def _the_channel(self) -> Channel:
        if self.channel is None:
            raise RuntimeError("this request did not come from a connection")
        return self.channel


#: An application without an event loop. None leaves the request to the ASGI application, if any.
SyncApp = Callable[[Request], Response | None]

#: An ASGI 3 application. Frameworks give its arguments types of their own.
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


class Hybrid(NamedTuple):
    """A `SyncApp` and the ASGI application beside it, as one argument."""

    sync_app: SyncApp
    asgi_app: ASGIApp


#: What a `Server` serves.
Served = SyncApp | ASGIApp | Hybrid


class Loaded(NamedTuple):
    """An application, and its name and kind for the start message."""

    app: Served
    name: str = ""
    kind: str = ""
