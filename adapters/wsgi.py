"""PEP 3333 on a `SyncApp`: the reference adapter.

`WSGIApp(app)` is a `SyncApp` that serves the WSGI application `app`. One instance serves all
threads; what it caches belongs to each thread alone.
"""

from __future__ import annotations

import io
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote_to_bytes

from threadwell.worker import FileBody, Request, Response, StreamLimitError

if TYPE_CHECKING:
    from types import TracebackType

    from threadwell.worker import HijackedSocket, ResponseStream
    from threadwell.worker.messages import Address, Channel

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

Environ = dict[str, Any]
WSGIApplication = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

# Below this, several blocks of a body are joined; above, they go to the kernel as they are.
_JOINED_BODY = 64 * 1024


_PER_REQUEST = (
    "REQUEST_METHOD PATH_INFO QUERY_STRING REQUEST_URI RAW_URI REMOTE_ADDR REMOTE_PORT"
    " wsgi.early_hints"
).split()


# The constructor of a named tuple, without the Python function around it.
_new = tuple.__new__


class FileWrapper:
    """`wsgi.file_wrapper`: a file-like object as the body of a response (PEP 3333).

    A real file, returned as it is, goes out by `sendfile` from where it stands; anything else,
    and a wrapper that middleware iterates, in blocks.
    """

    def __init__(self, filelike: Any, block_size: int = 64 * 1024) -> None:
        self.filelike = filelike
        self.block_size = block_size

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        block: bytes = self.filelike.read(self.block_size)
        if not block:
            raise StopIteration
        return block

    # Werkzeug seeks to where a range begins, where it can.

    def seekable(self) -> bool:
        return bool(getattr(self.filelike, "seekable", bool)())

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self.filelike.seek(offset, whence))

    def tell(self) -> int:
        return int(self.filelike.tell())

    def close(self) -> None:
        # looked up now: Django replaces the file's `close` with its response's
        close = getattr(self.filelike, "close", None)
        if close is not None:
            close()


class NoInput(io.RawIOBase):
    """`wsgi.input` of a request without a body. It has no state, so requests may share it."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ARG002
        return 0

    def close(self) -> None:
        """Nothing: it is not the request's own."""


class LazySocket:
    """`werkzeug.socket`: the connection's socket, hijacked when it is first used.

    flask-sock and simple-websocket look for it; so an application that never touches it is
    served as ever, and one that does gets the connection for itself.
    """

    def __init__(self, call: Call) -> None:
        self.__call = call
        self.__socket: HijackedSocket | None = None

    def __getattr__(self, name: str) -> Any:
        if self.__socket is None:
            try:
                self.__socket = self.__call.request.hijack()
            except StreamLimitError as error:
                self.__call.refused = error
                self.__call.plain = False
                raise
        return getattr(self.__socket, name)


class Call:
    """One call of the application: its `start_response` and `write`."""

    status = ""
    headers: list[tuple[str, str]]
    stream: ResponseStream | None = None
    #: Nothing was pushed or refused.
    plain = True
    #: What a hijack was refused with. Frameworks make a page of their own of it.
    refused: StreamLimitError | None = None

    def __init__(self, request: Request) -> None:
        self.request = request

    def start_response(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: ExcInfo | None = None,
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            self._start_again(exc_info)
        elif self.status:
            raise RuntimeError("start_response was called a second time, without exc_info")
        self.status = status
        self.headers = headers
        return self.write

    def head(self) -> tuple[str, list[tuple[str, str]]]:
        """What was last said of the answer's head."""
        return self.status, self.headers

    def _start_again(self, exc_info: ExcInfo) -> None:
        """The application wants to answer an error: too late once the head is on the wire."""
        try:
            if self.request.headers_sent:
                raise exc_info[1].with_traceback(exc_info[2])
        finally:
            del exc_info  # a cycle with the traceback otherwise (PEP 3333)

    def write(self, block: bytes) -> None:
        if not self.status:
            raise RuntimeError("write was called before start_response")
        if self.stream is None:
            if not block:
                return  # the head stays revisable until there is something behind it
            self.plain = False
            self.stream = self.request.stream(Response(self.status, self.headers))
        self.stream.write(block)

    def early_hints(self, headers: list[tuple[str, str]]) -> None:
        """Send 103 with `headers`, ahead of the answer (RFC 8297)."""
        self.request.inform(103, headers)


class WSGIApp:
    """A `SyncApp` around a WSGI application.

    `script_name` is where the application is mounted: it is cut from the path of the requests
    below it. `multiprocess` is what the application is told of other processes beside this one.
    """

    threadwell_interface = "sync"

    def __init__(
        self,
        app: WSGIApplication,
        *,
        script_name: str = "",
        multithread: bool = True,
        multiprocess: bool = False,
    ) -> None:
        self.app = app
        self._script_name = script_name.rstrip("/")
        self._multithread = multithread
        self._multiprocess = multiprocess

    def __call__(self, request: Request) -> Response:
        """Call the application once. Its errors are passed on; `close` is left to the server."""
        call = Call(request)
        result = self.app(self.environ(request, call), call.start_response)
        if type(result) is list and len(result) == 1 and call.plain and call.status:
            return _new(Response, (call.status, call.headers, result[0], None, None))
        try:
            return self._response(call, result)
        except BaseException:
            _close(result)  # the server has no response to close yet
            raise

    def environ(self, request: Request, call: Call) -> Environ:
        """A new environ for `request` (PEP 3333), whose answer `call` makes."""
        # A slice is a plain tuple, which unpacks faster than a named one.
        head, _, channel = request[:3]
        assert channel is not None
        method, target, path, query, _, _, variables, _, _, plain = head[:10]
        client, client_port, server, _, _, _ = channel.origin
        template = channel.notes.get(self)
        if template is None or template[0] is not server:
            template = channel.notes[self] = self._template(channel)
        if "%" in path:
            path = unquote_to_bytes(path).decode("latin-1")
        environ: Environ = template[1] | variables
        environ["REQUEST_METHOD"] = method
        environ["PATH_INFO"] = path
        environ["QUERY_STRING"] = query
        environ["REQUEST_URI"] = environ["RAW_URI"] = target
        environ["REMOTE_ADDR"] = client[0]
        environ["REMOTE_PORT"] = client_port
        environ["wsgi.early_hints"] = call.early_hints
        if not plain or "HTTP_PROXY" in variables or self._script_name:
            self._amend(environ, call)
        return environ

    def _template(self, channel: Channel) -> tuple[Address, Environ]:
        """What is the same in every environ of requests with one object for an address."""
        _, _, server, scheme, prefix, _ = channel.origin
        host, port = server
        template: Environ = {
            # set for each request; here, so that the copies have room for them
            **dict.fromkeys(_PER_REQUEST, ""),
            "SCRIPT_NAME": prefix,
            # a unix socket has a path and no port
            "SERVER_NAME": host if port else "localhost",
            "SERVER_PORT": str(port or (443 if scheme == "https" else 80)),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SERVER_SOFTWARE": "threadwell",
            "GATEWAY_INTERFACE": "CGI/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": scheme,
            "wsgi.input": NoInput(),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": self._multithread,
            "wsgi.multiprocess": self._multiprocess,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
        }
        if scheme == "https":
            template["HTTPS"] = "on"
            # of one connection: where clients show certificates, no other has this address object
            if "SSL_CLIENT_VERIFY" in channel.tls:
                template.update(channel.tls)
        return server, template

    def _amend(self, environ: Environ, call: Call) -> None:
        """What only some requests have: a body, HTTP/1.0, an upgrade, a prefix."""
        head, body, _ = call.request
        # many HTTP clients would take it for their proxy setting (httpoxy)
        environ.pop("HTTP_PROXY", None)
        if head.version != "1.1":
            environ["SERVER_PROTOCOL"] = "HTTP/" + head.version
        if body:
            environ["wsgi.input"] = io.BytesIO(body) if isinstance(body, bytes) else body
        if head.chunked:
            # it is whole now, and most frameworks read no body without a length
            size = len(body) if isinstance(body, bytes) else os.fstat(body.fileno()).st_size
            environ["CONTENT_LENGTH"] = str(size)
            del environ["HTTP_TRANSFER_ENCODING"]
        if "HTTP_UPGRADE" in environ:
            environ["werkzeug.socket"] = LazySocket(call)
        if self._script_name:
            self._mount(environ)

    def _mount(self, environ: Environ) -> None:
        path, prefix = environ["PATH_INFO"], self._script_name
        if path == prefix or path.startswith(prefix + "/"):
            environ["SCRIPT_NAME"] += prefix
            environ["PATH_INFO"] = path[len(prefix) :]

    def _response(self, call: Call, result: Any) -> Response:
        if call.refused is not None:
            raise call.refused
        close = getattr(result, "close", None)
        body: Any = result
        if not call.status:
            # a generator calls start_response when it is first asked for a block
            blocks = iter(result)
            first = next(blocks, None)
            if not call.status:
                raise RuntimeError("the application did not call start_response")
            body = [] if first is None else chain((first,), blocks)
        kind = type(body)
        if kind is tuple:
            body = list(body)
        if kind is list or kind is tuple:
            if len(body) == 1:
                body = body[0]
            elif sum(map(len, body)) <= _JOINED_BODY:
                body = b"".join(body)
        elif call.stream is None:
            if kind is FileWrapper:
                body = file_body(body.filelike, call.headers) or body
            elif type(getattr(body, "iterable", None)) is FileWrapper:
                body = _range_of_file(body.iterable, call) or body
        return Response(call.status, call.headers, body, close, call.head)


def _close(result: Any) -> None:
    close = getattr(result, "close", None)
    if close is not None:
        close()


# What wraps a file and reads from it what is there.
_TRANSPARENT = (
    "tempfile._TemporaryFileWrapper",
    "django.core.files.base.File",
    "django.core.files.uploadedfile.TemporaryUploadedFile",
    "django.db.models.fields.files.FieldFile",
    "django.db.models.fields.files.ImageFieldFile",
)


def _range_of_file(wrapper: FileWrapper, call: Call) -> FileBody | None:
    """The range that `Content-Range` says of the wrapped file; None where that cannot be told.

    Werkzeug's `send_file` cuts a range out of its file with an iterable around the wrapper.
    """
    fields = {name.lower(): value for name, value in call.headers}
    match = re.fullmatch(r"bytes ([0-9]+)-([0-9]+)/[0-9]+", fields.get("content-range", ""))
    if match is None or not call.status.startswith("206") or not wrapper.seekable():
        return None
    first, last = int(match[1]), int(match[2])
    if fields.get("content-length") != str(last - first + 1):
        return None
    return file_body(wrapper.filelike, call.headers, first)


def file_body(
    file: Any, headers: list[tuple[str, str]], first: int | None = None
) -> FileBody | None:
    """What the kernel can send of `file`, from where it stands; None: iterate instead.

    `first` is the octet to begin with, if that is not where it stands.

    The descriptor is a second one, so that the application's may be closed at once.
    """
    while f"{type(file).__module__}.{type(file).__qualname__}" in _TRANSPARENT:
        file = file.file
    # exactly these: what is made of one, as GzipFile, has its descriptor too, but other bytes
    if type(file) not in (io.FileIO, io.BufferedReader, io.BufferedRandom):
        return None
    if type(getattr(file, "raw", file)) is not io.FileIO:
        return None
    try:
        offset = file.tell() if first is None else first
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return None  # an empty one may be of those that are made when they are read
        count = max(status.st_size - offset, 0)
        for name, value in headers:
            if name.lower() == "content-length":
                count = min(count, int(value))
        return FileBody(os.dup(file.fileno()), offset, count)
    except (OSError, ValueError):
        return None
