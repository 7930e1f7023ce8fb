"""The adapter for WSGI applications (PEP 3333).

`WSGIApp(app)` is a `SyncApp` that calls the WSGI application `app`. All threads share one instance;
what it caches is kept for each thread.
"""

from __future__ import annotations

import functools
import io
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

from threadwell.worker import (
    CommonFields,
    FileBody,
    InvalidResponseError,
    Request,
    Response,
    StreamLimitError,
)

if TYPE_CHECKING:
    from types import TracebackType

    from threadwell.worker import Address, Channel, HijackedSocket, ResponseStream

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

Environ = dict[str, Any]
WSGIApplication = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

# Several blocks of a body are joined up to this size. The blocks of a larger body are not copied.
_JOINED_BODY = 64 * 1024

# The parser keeps 16 sets of common fields, and may have replaced some.
_MOST_TEMPLATES = 32

# The variables that each request sets. The template has them, so that its copies need not grow.
_PER_REQUEST = (
    "REQUEST_METHOD PATH_INFO QUERY_STRING REQUEST_URI RAW_URI REMOTE_ADDR REMOTE_PORT"
    " wsgi.early_hints"
).split()


class FileWrapper:
    """`wsgi.file_wrapper`: a file-like object as the body of a response (PEP 3333).

    If the application returns the wrapper of a real file, `sendfile` sends it from its current
    position. Any other file, and a wrapper that middleware iterates over, is read in blocks.
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

    # Werkzeug seeks to the start of a range if it can.

    def seekable(self) -> bool:
        return bool(getattr(self.filelike, "seekable", bool)())

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self.filelike.seek(offset, whence))

    def tell(self) -> int:
        return int(self.filelike.tell())

    def close(self) -> None:
        # Looked up late: Django replaces the `close` of the file with that of its response.
        close = getattr(self.filelike, "close", None)
        if close is not None:
            close()


class NoInput(io.BytesIO):
    """`wsgi.input` of a request without a body: an empty `BytesIO` that cannot change.

    It takes what that of a request with a body takes. It has no state, so requests share one.
    """

    def writable(self) -> bool:
        return False

    def write(self, data: Any) -> int:  # noqa: ARG002
        raise io.UnsupportedOperation("write")

    def writelines(self, lines: Any) -> None:  # noqa: ARG002
        raise io.UnsupportedOperation("writelines")

    def truncate(self, size: int | None = None) -> int:  # noqa: ARG002
        raise io.UnsupportedOperation("truncate")

    def seek(self, offset: int, whence: int = 0) -> int:
        # The position is never used, and stays: another request would see it.
        return io.BytesIO().seek(offset, whence)

    def close(self) -> None:
        """Do nothing, because other requests use this object."""


class ErrorStream(io.TextIOBase):
    """`wsgi.errors`: what `sys.stderr` is whenever it is used, or nothing if there is none.

    All requests share one, so an application that closes it closes nothing. `sys.stderr` is None in
    a process without a standard error, and is replaced by tests and by log capturing.
    """

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(sys.stderr, "encoding", "utf-8")

    @property
    def errors(self) -> str:  # type: ignore[override]
        return getattr(sys.stderr, "errors", "backslashreplace")

    def write(self, text: str) -> int:
        return len(text) if sys.stderr is None else sys.stderr.write(text)

    def flush(self) -> None:
        if sys.stderr is not None:
            sys.stderr.flush()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return super().fileno() if sys.stderr is None else sys.stderr.fileno()

    def isatty(self) -> bool:
        return sys.stderr is not None and sys.stderr.isatty()

    def close(self) -> None:
        """Do nothing, because other requests use this object."""

    def __getattr__(self, name: str) -> Any:
        # `buffer`, `reconfigure`: what not every text stream has.
        return getattr(sys.stderr, name)


class LazySocket:
    """`werkzeug.socket`: the socket of the connection, which its first use hijacks.

    flask-sock and simple-websocket use it. An application that never does is served as usual.
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
                self.__call.is_simple = False
                raise
        return getattr(self.__socket, name)


class _Templates:
    """What the environs of requests to one `server` have in common, for each set of fields that
    their heads have in common. Bounded; used by one thread."""

    def __init__(self, server: Address, template: Environ) -> None:
        self.server = server
        self._template = template
        self.known: dict[CommonFields, Environ] = {}  # a subclass would take twice as long

    def add(self, common: CommonFields) -> Environ:
        if len(self.known) >= _MOST_TEMPLATES:
            self.known.clear()
        template = self.known[common] = self._template | common.variables
        return template


class Call:
    """One call of the application: its `start_response`, and the `write` that this returns.

    It is called as `write` itself: a method of it would have to be bound for each request, and
    hardly any application uses it.
    """

    headers: list[tuple[str, str]]
    # Few calls set these; the others read them from the class.
    stream: ResponseStream | None = None
    #: The response is what the application returns: nothing was written, no hijack was refused, and
    #: it does not answer HEAD.
    is_simple = True
    #: The error of a refused hijack. A framework may have turned it into a page of its own.
    refused: StreamLimitError | None = None

    def __init__(self, request: Request) -> None:
        self.request = request
        #: Empty until `start_response` is called, which sets `headers` too.
        self.status = ""

    def start_response(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: ExcInfo | None = None,
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            self._restart(exc_info)
        elif self.status:
            raise RuntimeError("start_response was called a second time, without exc_info")
        self.status = status
        self.headers = headers
        return self

    def head(self) -> tuple[str, list[tuple[str, str]]]:
        """The status and headers of the last `start_response`."""
        return self.status, self.headers

    def _restart(self, exc_info: ExcInfo) -> None:
        """Allow another `start_response` for an error page, unless the head has been sent."""
        try:
            if self.request.headers_sent:
                raise exc_info[1].with_traceback(exc_info[2])
        finally:
            del exc_info  # It would be a reference cycle with the traceback (PEP 3333).

    def __call__(self, block: bytes) -> None:
        if not self.status:
            raise RuntimeError("write was called before start_response")
        if self.stream is None:
            if not block:
                return  # The head can still change: PEP 3333 sends it with the first octet.
            self.is_simple = False
            self.stream = self.request.stream(Response(self.status, self.headers))
        self.stream.write(block)

    def early_hints(self, headers: list[tuple[str, str]]) -> None:
        """Send a 103 response with `headers` ahead of the final one (RFC 8297)."""
        self.request.inform(103, headers)


class WSGIApp:
    """A `SyncApp` that calls a WSGI application.

    `script_name` is the path that the application is mounted at: it moves from the beginning of
    `PATH_INFO` to `SCRIPT_NAME`. `multithread` and `multiprocess` become the variables of these
    names. Any thread may call the instance.
    """

    threadwell_interface = "sync"

    @property
    def threadwell_wrapped(self) -> Any:
        """The application, for messages that name it."""
        return self.app

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
        """Call the application once. Its exceptions propagate; the server calls `close`."""
        call = Call(request)
        try:
            result = self.app(self.environ(request, call), call.start_response)
        except TypeError as error:
            from .wsgi_mistakes import OTHER_KIND, refuses_arguments  # only for a mistake

            if refuses_arguments(error, self.app):
                error.add_note(OTHER_KIND)
            raise
        if type(result) is list and len(result) == 1 and call.is_simple and call.status:
            return Response(call.status, call.headers, result[0], None, None)
        return self.response(call, result)

    def environ(self, request: Request, call: Call) -> Environ:
        """A new environ for `request` (PEP 3333). `call` is the call that gets it."""
        head, body, channel = request.head, request.body, request.channel
        assert channel is not None
        origin = channel.origin
        templates = channel.notes.get(self)
        if templates is None or templates.server is not origin.server:
            templates = channel.notes[self] = self._templates(channel)
        path = head.path
        if "%" in path:
            path = _unquote()(path).decode("latin-1")
        try:
            template = templates.known[head.common]
        except KeyError:
            template = templates.add(head.common)
        environ = template | head.own
        environ["REQUEST_METHOD"] = head.method
        environ["PATH_INFO"] = path
        environ["QUERY_STRING"] = head.query
        environ["REQUEST_URI"] = environ["RAW_URI"] = head.target
        environ["REMOTE_ADDR"] = origin.client[0]
        environ["REMOTE_PORT"] = origin.client_port
        environ["wsgi.early_hints"] = call.early_hints
        if not head.is_simple:
            if body:
                environ["wsgi.input"] = io.BytesIO(body) if type(body) is bytes else body
            if head.method == "HEAD":
                call.is_simple = False
            if not head.stays_open and (
                head.chunked or head.version != "1.1" or "HTTP_UPGRADE" in environ
            ):
                self._amend(environ, call)
        if "HTTP_PROXY" in environ:
            # Many HTTP clients would take it for their proxy setting (httpoxy, CVE-2016-5385).
            del environ["HTTP_PROXY"]
        if self._script_name:
            self._mount(environ)
        return environ

    def _templates(self, channel: Channel) -> _Templates:
        """The variables that all requests with this `origin.server` object have in common."""
        origin = channel.origin
        scheme, (host, port) = origin.scheme, origin.server
        template: Environ = {
            **dict.fromkeys(_PER_REQUEST, ""),
            "SCRIPT_NAME": origin.prefix,
            # A unix socket has a path and no port.
            "SERVER_NAME": host if port else "localhost",
            "SERVER_PORT": str(port or (443 if scheme == "https" else 80)),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SERVER_SOFTWARE": "threadwell",
            "GATEWAY_INTERFACE": "CGI/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": scheme,
            "wsgi.input": NoInput(),
            "wsgi.errors": ErrorStream(),
            "wsgi.multithread": self._multithread,
            "wsgi.multiprocess": self._multiprocess,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
        }
        if scheme == "https":
            template["HTTPS"] = "on"
            # With client certificates, each connection has an address object of its own.
            if "SSL_CLIENT_VERIFY" in channel.tls:
                template.update(channel.tls)
        return _Templates(origin.server, template)

    def _amend(self, environ: Environ, call: Call) -> None:
        """Add what only some requests need: a chunked body, HTTP/1.0, an upgrade."""
        head, body = call.request.head, call.request.body
        if head.version != "1.1":
            environ["SERVER_PROTOCOL"] = "HTTP/" + head.version
        if head.chunked:
            # The body has arrived in full, and most frameworks ignore one without a length.
            if isinstance(body, bytes):
                size = len(body)
            else:
                size = body.seek(0, os.SEEK_END)
                body.seek(0)
            environ["CONTENT_LENGTH"] = str(size)
            del environ["HTTP_TRANSFER_ENCODING"]
        if "HTTP_UPGRADE" in environ:
            environ["werkzeug.socket"] = LazySocket(call)

    def _mount(self, environ: Environ) -> None:
        path, prefix = environ["PATH_INFO"], self._script_name
        if path == prefix or path.startswith(prefix + "/"):
            environ["SCRIPT_NAME"] += prefix
            environ["PATH_INFO"] = path[len(prefix) :]

    def response(self, call: Call, result: Any) -> Response:
        """The response of `call`, which has returned `result`. Closes `result` if it raises."""
        try:
            if call.refused is not None:
                raise call.refused
            close = getattr(result, "close", None)
            body: Any = result
            if not call.status:
                # A generator calls start_response when its first block is requested.
                blocks = iter(result)
                first = next(blocks, None)
                if not call.status:
                    raise InvalidResponseError("it did not call start_response")
                body = [] if first is None else chain((first,), blocks)
            kind = type(body)
            if kind is tuple:
                body = list(body)
            if kind is list or kind is tuple:
                if len(body) == 1:
                    body = body[0]
                elif sum(map(len, body)) <= _JOINED_BODY:
                    body = b"".join(body)
                if not body and call.request.head.method == "HEAD":
                    # It does not say how long the answer to GET is (RFC 9110, 8.6).
                    body = iter(())
            elif call.stream is None:
                if kind is FileWrapper:
                    body = file_body(body.filelike, call.headers) or body
                elif type(getattr(body, "iterable", None)) is FileWrapper:
                    body = _range_of_file(body.iterable, call) or body
            return Response(call.status, call.headers, body, close, call.head)
        except BaseException as error:
            _close(result)  # The server does not have the response yet.
            if isinstance(error, (TypeError, ValueError)):
                _explain(result)
            raise


@functools.cache
def _unquote() -> Callable[[str], bytes]:
    # not before a path needs it, to keep the start fast
    from urllib.parse import unquote_to_bytes

    return unquote_to_bytes


def _close(result: Any) -> None:
    close = getattr(result, "close", None)
    if close is not None:
        close()


def _explain(result: Any) -> None:
    """Raise `InvalidResponseError` if `result` is none that an application may return."""
    from .wsgi_mistakes import mistake_in  # only for a mistake

    if mistake := mistake_in(result):
        raise InvalidResponseError(mistake) from None


# Wrappers that read the same octets as the file they wrap.
_TRANSPARENT = (
    "tempfile._TemporaryFileWrapper",
    "django.core.files.base.File",
    "django.core.files.uploadedfile.TemporaryUploadedFile",
    "django.db.models.fields.files.FieldFile",
    "django.db.models.fields.files.ImageFieldFile",
)


def _range_of_file(wrapper: FileWrapper, call: Call) -> FileBody | None:
    """The part of the wrapped file that `Content-Range` names; None if that is not certain.

    `send_file` of Werkzeug takes a range out of its file with an iterable around the wrapper.
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
    """A body that the kernel sends from `file`; None if the file must be read instead.

    It starts at the offset `first`, by default the current position, and ends after the
    `Content-Length` of `headers`. It has a duplicate of the descriptor, so that the application may
    close its own.
    """
    while f"{type(file).__module__}.{type(file).__qualname__}" in _TRANSPARENT:
        file = file.file
    # Exactly these types: a GzipFile, for example, has the descriptor of a file with other octets.
    if type(file) not in (io.FileIO, io.BufferedReader, io.BufferedRandom):
        return None
    if type(getattr(file, "raw", file)) is not io.FileIO:
        return None
    try:
        offset = file.tell() if first is None else first
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return None  # A file of /proc has size 0, and its content is made when it is read.
        count = max(status.st_size - offset, 0)
        for name, value in headers:
            if name.lower() == "content-length":
                count = min(count, int(value))
        return FileBody(os.dup(file.fileno()), offset, count)
    except (OSError, ValueError):
        return None
