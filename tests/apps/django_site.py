"""A small Django project in one file. While it serves, nobody can make an event loop."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    JsonResponse,
    StreamingHttpResponse,
)
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from threadwell import ThreadedServer

FILE = tempfile.NamedTemporaryFile(suffix=".bin")  # noqa: SIM115 - open until the end
FINISHED: list[str] = []
STARTED: list[str] = []


def index(request: HttpRequest) -> HttpResponse:
    """Some of what Django knows of the request."""
    return JsonResponse(
        {
            "path": request.path,
            "query": request.GET.dict(),
            "url": request.build_absolute_uri(),
            "started": len(STARTED),
            "finished": len(FINISHED),
        }
    )


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """A body that is being made."""

    def blocks() -> Iterator[str]:
        for number in range(5):
            yield f"data: {number}\n\n"

    return StreamingHttpResponse(blocks(), content_type="text/event-stream")


def file(request: HttpRequest) -> FileResponse:
    """A file, by `wsgi.file_wrapper`."""
    return FileResponse(Path(FILE.name).open("rb"), as_attachment=True, filename="a.bin")


def fail(request: HttpRequest) -> HttpResponse:
    """A view that raises."""
    raise LookupError("the secret")


@csrf_exempt
def upload(request: HttpRequest) -> HttpResponse:
    """Forms, files, and any other body."""
    if request.content_type.startswith(("multipart/", "application/x-www-form-urlencoded")):
        files = {name: len(part.read()) for name, part in request.FILES.items()}
        return JsonResponse({"form": request.POST.dict(), "files": files})
    body = request.body
    return JsonResponse({"size": len(body), "sha": hashlib.sha256(body).hexdigest()})


urlpatterns = [
    path("", index),
    path("stream", stream),
    path("file", file),
    path("fail", fail),
    path("upload", upload),
]


def _forbidden(*_arguments: Any, **_options: Any) -> Any:
    raise AssertionError("somebody makes an event loop")


def main() -> None:
    """Serve until standard input ends."""
    FILE.write(bytes(range(256)) * 4096)
    FILE.flush()
    settings.configure(
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="for tests only",
        MIDDLEWARE=[
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.middleware.http.ConditionalGetMiddleware",
        ],
        LOGGING_CONFIG=None,
        DATA_UPLOAD_MAX_MEMORY_SIZE=None,
    )
    django.setup()
    request_started.connect(lambda **_: STARTED.append("started"), weak=False)
    request_finished.connect(lambda **_: FINISHED.append("finished"), weak=False)
    app = get_wsgi_application()
    asyncio.new_event_loop = _forbidden
    asyncio.Runner.__init__ = _forbidden  # type: ignore[method-assign]
    with ThreadedServer(app, bind="127.0.0.1:0", threads=2) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        sys.stdin.read()
    FILE.close()


if __name__ == "__main__":
    main()
