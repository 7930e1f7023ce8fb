"""Django views of every kind, served as `DjangoApp` and through WSGI at once, to compare the two.

As a script it takes settings as JSON, prints the port of a server that knows what happened, and
serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.cache import cache
from django.core.cache.backends.base import BaseCache
from django.core.files.base import File
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseNotModified,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.middleware.csrf import get_token
from django.template.response import SimpleTemplateResponse
from django.urls import get_script_prefix, path, reverse
from django.utils import timezone, translation
from django.views.decorators.csrf import csrf_exempt

from threadwell import ThreadedServer
from threadwell.adapters.django.handler import DjangoApp, django_app
from threadwell.adapters.wsgi import WSGIApp

#: What happened, in order.
EVENTS: list[Any] = []
#: What the server complains of. Nobody reads standard error until the end: it would fill up.
LOG: list[str] = []
RELEASE = threading.Event()
CONTENT = bytes(range(256)) * 1024
PER_PORT = ("SERVER_PORT", "REMOTE_PORT")


class CountedCache(BaseCache):
    """A cache that says when it is made and closed, as one that has a connection would."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        self.data: dict[str, Any] = {}
        self.made_by = threading.get_ident()
        EVENTS.append(["cache made", threading.get_ident()])

    def get(self, key: str, default: Any = None, version: Any = None) -> Any:
        return self.data.get(key, default)

    def set(self, key: str, value: Any, *_: Any, **__: Any) -> None:
        self.data[key] = value

    def close(self, **_: Any) -> None:
        EVENTS.append(["cache closed", threading.get_ident()])


class Closing:
    """Blocks that say when they are closed."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks

    def close(self) -> None:
        EVENTS.append(["content closed", threading.get_ident()])


class Resource:
    """Something that the response closes."""

    def close(self) -> None:
        EVENTS.append(["resource closed", threading.get_ident()])


def raising(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Middleware that fails when it is asked to."""

    def middleware(request: HttpRequest) -> Any:
        when = request.headers.get("X-Fail", "")
        if when == "before":
            raise LookupError("before the view")
        response = get_response(request)
        response._resource_closers.append(Resource().close)
        if when == "after":
            raise LookupError("after the view")
        if when == "unrendered":
            return SimpleTemplateResponse("no-template.html")
        return response

    return middleware


def meta(request: HttpRequest) -> JsonResponse:
    """All that the view is told."""
    told = {name: repr(value) for name, value in request.META.items() if name not in PER_PORT}
    for name in ("wsgi.input", "wsgi.errors", "wsgi.early_hints", "wsgi.file_wrapper"):
        if name in told:  # their addresses are their own
            told[name] = type(request.META[name]).__name__
    assert request.environ is request.META  # type: ignore[attr-defined]
    return JsonResponse(
        {
            "meta": dict(sorted(told.items())),
            "path": request.path,
            "path_info": request.path_info,
            "full": request.get_full_path(),
            "get": dict(request.GET.lists()),
            "cookies": request.COOKIES,
            "scheme": request.scheme,
            "kind": type(request).__name__,
            "prefix": get_script_prefix(),
            "reversed": reverse("meta"),
        }
    )


def hello(request: HttpRequest) -> HttpResponse:
    """`?size=` bytes, with `?status=` and `?reason=`."""
    size = int(request.GET.get("size", 5))
    status = int(request.GET.get("status", 200))
    return HttpResponse(b"x" * size, status=status, reason=request.GET.get("reason"))


def headers(request: HttpRequest) -> HttpResponse:
    """Fields of all kinds."""
    response = HttpResponse("fields")
    response["X-Number"] = 5  # type: ignore[assignment]
    response["X-Latin"] = "caf\u00e9"
    response["X-Snow"] = "\u2603"
    response["x-lower"] = ""
    response["Connection"] = "close"
    response["Transfer-Encoding"] = "chunked"
    response.set_cookie("a", "1", max_age=60, httponly=True, samesite="Lax")
    response.cookies["a"]["expires"] = "Thu, 01 Jan 2026 00:00:00 GMT"  # the seconds pass
    response.set_cookie("b", "\u00fcber; x", secure=True, path="/b")
    response.delete_cookie("c")
    return response


def broken(request: HttpRequest) -> HttpResponse:
    """A head that cannot go on the wire."""
    response = HttpResponse("never seen")
    kind = request.GET["kind"]
    if kind == "length":
        response["Content-Length"] = "many"
    elif kind == "status":
        response.status_code = 99
    elif kind == "text status":
        response.status_code = "200"  # type: ignore[assignment]
    elif kind == "reason":
        response.reason_phrase = "\u2603"
    elif kind == "newline":
        response.headers._store["x"] = ("X", "a\r\nSet-Cookie: b=c")  # type: ignore[attr-defined]
    elif kind == "stream":
        streaming = StreamingHttpResponse(Closing(iter([b"a"])))
        streaming["Content-Length"] = "many"
        return streaming  # type: ignore[return-value]
    return response


class Status(int):
    """As a status of an enumeration: a number that prints as its name."""

    def __str__(self) -> str:
        return "TEAPOT"

    def __format__(self, _: str) -> str:
        return "TEAPOT"


def named(request: HttpRequest) -> HttpResponse:
    """A status that does not print as its number."""
    response = HttpResponse("tea")
    response.status_code = Status(418)
    return response


def not_modified(request: HttpRequest) -> HttpResponse:
    """304, of the view's own."""
    return HttpResponseNotModified()


def redirect(request: HttpRequest) -> HttpResponse:
    """Elsewhere, in a path that is not ASCII."""
    return HttpResponseRedirect("/caf\u00e9/?q=\u00fc")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """`?blocks=`, of text and bytes; `?wait` before the second, `?fail` after the first."""

    def blocks() -> Iterator[Any]:
        EVENTS.append(["iterated", threading.get_ident()])
        for number in range(int(request.GET.get("blocks", 3))):
            yield f"block {number};" if number % 2 else b"bytes;"
            if "wait" in request.GET:
                RELEASE.wait(20)
            if "fail" in request.GET:
                raise LookupError("in the middle")

    response = StreamingHttpResponse(Closing(blocks()))
    if "declared" in request.GET:
        response["Content-Length"] = request.GET["declared"]
    return response


def endless(request: HttpRequest) -> StreamingHttpResponse:
    """Blocks until the client has gone, made with a connection to the database."""

    def blocks() -> Iterator[bytes]:
        while True:
            connection.ensure_connection()
            yield b"x" * 65536

    response = StreamingHttpResponse(blocks())
    response._resource_closers.append(
        lambda: EVENTS.append(["had connection", connection.connection is not None])
    )
    return response


def file(request: HttpRequest) -> FileResponse:
    """A file of `?kind=`, `?from=` some place; it may grow meanwhile, or be more than declared."""
    kind, start = request.GET["kind"], int(request.GET.get("from", 0))
    opened: Any
    if kind == "bytes":
        opened = io.BytesIO(CONTENT)
    elif kind == "uploaded":
        opened = TemporaryUploadedFile("a.bin", "x/y", len(CONTENT), None)
        opened.write(CONTENT)
    elif kind == "temporary":
        opened = tempfile.NamedTemporaryFile()  # noqa: SIM115
        opened.write(CONTENT)
    elif kind == "empty":
        opened = tempfile.TemporaryFile()  # noqa: SIM115
    else:
        opened = open(settings.A_FILE, "rb")  # noqa: SIM115
        if kind == "django":
            opened = File(opened, "name.bin")
        elif kind == "field":
            from django.db.models.fields.files import FieldFile

            opened = _field_file(FieldFile, opened)
    opened.seek(start)
    response = FileResponse(opened, filename="a.bin")
    if kind == "growing":
        with open(settings.A_FILE, "ab") as more:
            more.write(b"more")
        os.truncate(settings.A_FILE, len(CONTENT) + 4)
    if "declared" in request.GET:
        response["Content-Length"] = request.GET["declared"]
    return response


def _field_file(kind: Any, opened: Any) -> Any:
    field_file = kind.__new__(kind)
    field_file._file = field_file.file = opened
    field_file.name = "field.bin"
    field_file._committed = True
    field_file.mode = "rb"
    return field_file


@csrf_exempt
def body(request: HttpRequest) -> HttpResponse:
    """What came in."""
    data = request.body
    return JsonResponse({"size": len(data), "sha": hashlib.sha256(data).hexdigest()})


@csrf_exempt
def parts(request: HttpRequest) -> HttpResponse:
    """A form, and its files: how they were kept, and what is in them."""
    files = {}
    for name, part in request.FILES.items():
        digest = hashlib.sha256()
        for chunk in part.chunks():
            digest.update(chunk)
        files[name] = [type(part).__name__, part.size, digest.hexdigest()]
    return JsonResponse({"form": request.POST.dict(), "files": files})


@csrf_exempt
def reread(request: HttpRequest) -> HttpResponse:
    """The body, after its stream was read in part."""
    begun = request.read(3).decode()
    try:
        rest = request.body.decode()
    except Exception as error:
        rest = type(error).__name__
    return JsonResponse({"begun": begun, "rest": rest, "stream": request.read().decode()})


def protected(request: HttpRequest) -> HttpResponse:
    """A form that wants its token."""
    return HttpResponse(get_token(request) if request.method == "GET" else request.POST["said"])


async def asynchronous(request: HttpRequest) -> HttpResponse:
    """An async view."""
    await asyncio.sleep(0)
    return HttpResponse(f"awaited {request.path}")


async def async_stream(request: HttpRequest) -> StreamingHttpResponse:
    """An async view with an async body."""

    async def blocks() -> AsyncIterator[bytes]:
        for number in range(3):
            await asyncio.sleep(0)
            yield b"%d;" % number

    return StreamingHttpResponse(blocks())


def fail(request: HttpRequest) -> HttpResponse:
    """A view that raises."""
    connection.ensure_connection()
    if request.GET.get("how") == "exit":
        raise SystemExit("not even this ends a thread")
    raise LookupError("the secret")


def state(request: HttpRequest) -> HttpResponse:
    """What another request may have left; `?set` leaves it."""
    seen = [translation.get_language(), timezone.get_current_timezone_name(), get_script_prefix()]
    if "set" in request.GET:
        translation.activate("de")
        timezone.activate("Asia/Tokyo")
    return JsonResponse({"seen": seen, "thread": threading.get_ident()})


def cached(request: HttpRequest) -> HttpResponse:
    """A count that this thread's cache has."""
    assert cache.made_by == threading.get_ident()  # type: ignore[attr-defined]
    cache.set("count", cache.get("count", 0) + 1)
    return JsonResponse({"count": cache.get("count"), "thread": threading.get_ident()})


async def async_cached(request: HttpRequest) -> HttpResponse:
    """The same from an event loop."""
    cache.set("count", cache.get("count", 0) + 1)
    return JsonResponse({"count": cache.get("count")})


def recache(request: HttpRequest) -> HttpResponse:
    """Other caches, as `override_settings` makes them."""
    import django.test.signals  # noqa: F401
    from django.core.signals import setting_changed

    settings.CACHES = {"default": {"BACKEND": f"{__name__}.CountedCache", "LOCATION": "new"}}
    setting_changed.send(sender=None, setting="CACHES", value=settings.CACHES, enter=True)
    return HttpResponse("done")


def queries(request: HttpRequest) -> HttpResponse:
    """How many queries this request sees of itself and of others."""
    connection.force_debug_cursor = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return JsonResponse({"count": len(connection.queries)})


urlpatterns = [
    path("", meta, name="meta"),
    path("hello", hello),
    path("headers", headers),
    path("broken", broken),
    path("named", named),
    path("304", not_modified),
    path("redirect", redirect),
    path("stream", stream),
    path("endless", endless),
    path("file", file),
    path("body", body),
    path("parts", parts),
    path("reread", reread),
    path("protected", protected),
    path("async", asynchronous),
    path("async-stream", async_stream),
    path("fail", fail),
    path("state", state),
    path("cached", cached),
    path("async-cached", async_cached),
    path("recache", recache),
    path("queries", queries),
    path("<path:rest>", lambda request, rest: meta(request)),
]


class _Log(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        LOG.append(record.getMessage())


def _passing(app: Callable[..., Any]) -> Callable[..., Any]:
    """WSGI middleware, which hides what is in it."""

    def middleware(environ: dict[str, Any], start_response: Any) -> Any:
        return app(environ, start_response)

    return middleware


def _hwm() -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


def configure(**changes: Any) -> Any:
    """Set Django up, and return its handler."""
    options = {
        "ROOT_URLCONF": __name__,
        "ALLOWED_HOSTS": ["*"],
        "SECRET_KEY": "for tests only",
        "USE_TZ": True,
        "MIDDLEWARE": [
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.middleware.http.ConditionalGetMiddleware",
            f"{__name__}.raising",
        ],
        "TEMPLATES": [{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        "LOGGING_CONFIG": None,
    }
    logging.getLogger("django").addHandler(logging.NullHandler())
    settings.configure(**{**options, **changes})
    django.setup()
    return get_wsgi_application()


def _started(sender: Any, environ: dict[str, Any], **_: Any) -> None:
    EVENTS.append(["started", sender.__name__, environ["PATH_INFO"], threading.get_ident()])


def _finished(sender: Any, **_: Any) -> None:
    EVENTS.append(["finished", sender.__name__, threading.get_ident()])


def _control(servers: dict[str, ThreadedServer]) -> Callable[..., list[bytes]]:
    """What a test asks about, and lets happen."""

    def control(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        said: Any = None
        word = environ["PATH_INFO"]
        if word == "/ports":
            said = {name: server.port for name, server in servers.items()}
        elif word == "/events":
            said, EVENTS[:] = list(EVENTS), []
        elif word == "/log":
            said = LOG
        elif word == "/hwm":
            said = _hwm()
        elif word == "/release":
            RELEASE.set()
        elif word == "/hold":
            RELEASE.clear()
        elif word == "/force":
            settings.FORCE_SCRIPT_NAME = environ["QUERY_STRING"]
        elif word == "/stop":
            for server in servers.values():
                server.stop()
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(said).encode()]

    return control


def main() -> None:
    """Serve until standard input ends."""
    logging.getLogger("threadwell").addHandler(_Log())
    changes = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    threads = changes.pop("threads", 3)
    with tempfile.NamedTemporaryFile() as a_file:
        a_file.write(CONTENT)
        a_file.flush()
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{a_file.name}.db"}
        handler = configure(A_FILE=a_file.name, DATABASES={"default": database}, **changes)
        warnings.filterwarnings("always", "StreamingHttpResponse must consume")
        warnings.showwarning = lambda message, *_, **__: EVENTS.append(["warned", str(message)])
        request_started.connect(_started)
        request_finished.connect(_finished)
        apps = {
            "direct": DjangoApp(handler),
            "wsgi": WSGIApp(handler),
            "direct below": DjangoApp(handler, script_name="/below/"),
            "wsgi below": WSGIApp(handler, script_name="/below/"),
            "middleware": django_app(_passing(handler)),
        }
        servers = {
            name: ThreadedServer(
                app, interface="sync", bind="127.0.0.1:0", threads=threads, graceful_timeout=2
            )
            for name, app in apps.items()
        }
        control = ThreadedServer(_control(servers), bind="127.0.0.1:0", threads=1)
        for server in (*servers.values(), control):
            server.start()
        sys.stdout.write(f"{control.port}\n")
        sys.stdout.flush()
        sys.stdin.read()
        for server in (*servers.values(), control):
            server.stop()
        Path(database["NAME"]).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
