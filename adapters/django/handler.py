"""Django's handler as a `SyncApp`, without `start_response` between the two.

It is `WSGIHandler.__call__` with an answer that is returned: the same environ, the same signals,
and `close()` of every response, so that nothing above Django's WSGI entry can tell.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from django.conf import settings
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.cache import caches
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.handlers.wsgi import WSGIHandler, get_script_name
from django.core.signals import request_started
from django.db import connections
from django.urls import set_script_prefix

from loopless.adapters.wsgi import Call, WSGIApp, WSGIApplication, file_body
from loopless.worker import Request, Response

if TYPE_CHECKING:
    from django.core.cache.backends.base import BaseCache
    from django.http.response import HttpResponseBase

    from loopless.worker import SyncApp


class DjangoApp(WSGIApp):
    """A `SyncApp` around a handler of Django's. One instance serves all threads.

    `handler` is what `get_wsgi_application()` returns. `script_name` and `multiprocess` are those
    of `WSGIApp`.
    """

    app: WSGIHandler

    def __init__(self, handler: WSGIHandler, **options: Any) -> None:
        super().__init__(handler, **options)

    def __call__(self, request: Request) -> Response:
        """One request through Django's middleware. Closing the response is left to the server."""
        call = Call(request)
        environ = self.environ(request, call)
        assert request.channel is not None
        notes = request.channel.notes
        thread = notes.get(_Thread)
        if thread is None:
            thread = notes[_Thread] = _Thread()
        else:
            thread.resume()
        handler = self.app
        sender = handler.__class__
        # the request's context is new, and "/" is what it has
        if environ["SCRIPT_NAME"] or settings.FORCE_SCRIPT_NAME:
            set_script_prefix(get_script_name(environ))
        request_started.send(sender=sender, environ=environ)
        response: Any = handler.get_response(handler.request_class(environ))
        response._handler_class = sender  # what request_finished says it comes from
        try:
            if call.refused is not None:
                raise call.refused
            # `items()` of a mapping looks each name up again, which costs more than all the rest
            headers = list(response.headers._store.values())
            if response.cookies:
                headers += [("Set-Cookie", c.OutputString()) for c in response.cookies.values()]
            return Response(
                f"{response.status_code} {response.reason_phrase}",
                headers,
                _stream(response, headers) if response.streaming else response.content,
                response.close,
            )
        except BaseException:
            response.close()  # the server has no response to close yet
            raise


def _stream(response: Any, headers: list[tuple[str, str]]) -> Any:
    """The body of a streaming response: by the kernel if it is a file, else block by block."""
    file = getattr(response, "file_to_stream", None)
    body = None if file is None else file_body(file, headers)
    return _blocks(response) if body is None else body


def _blocks(response: HttpResponseBase) -> Iterator[bytes]:
    # Only now: to iterate is to run the view's code, which must happen on its lent thread.
    # An asynchronous iterator is consumed at once, with Django's own warning.
    yield from response


class _Thread:
    """What a serving thread keeps of Django from one request to the next.

    Each request has a context of its own, and Django's caches live in the context: without this
    every request would connect to Redis or Memcached anew. Database connections are the thread's.
    """

    def __init__(self) -> None:
        self._caches: dict[str, BaseCache] = {}
        for alias in caches:
            try:
                cache = caches[alias]
            except Exception:
                continue  # whoever uses it will be told
            if not isinstance(cache, (LocMemCache, DummyCache)):  # they are connected to nothing
                self._caches[alias] = cache

    def resume(self) -> None:
        """Hand the caches to the next request."""
        for alias, cache in self._caches.items():
            caches[alias] = cache

    def close(self) -> None:
        """The thread ends: nothing of it stays open."""
        connections.close_all()
        for cache in self._caches.values():
            cache.close()


class _StaticFilesApp:
    """A `SyncApp` around staticfiles' handler: its files, and `application` for all else."""

    loopless_interface = "sync"

    def __init__(self, handler: StaticFilesHandler, application: SyncApp, **options: Any) -> None:
        self._files = DjangoApp(handler, **options)
        self._application = application
        # elsewhere, as on a CDN, is none of this server's business
        self._prefix = None if handler.base_url.netloc else handler.base_url.path

    def __call__(self, request: Request) -> Response | None:
        if self._prefix is not None and unquote(request.path).startswith(self._prefix):
            return self._files(request)
        return self._application(request)


def django_app(application: WSGIApplication, **options: Any) -> SyncApp:
    """A `SyncApp` for what `WSGI_APPLICATION` names, as direct as it allows.

    Django's own handlers are called without WSGI between. WSGI middleware around them, and a
    handler whose `__call__` is not Django's - a subclass, or one that a monitoring agent has
    replaced - are served as any WSGI application. `options` are those of `WSGIApp`.
    """
    if isinstance(application, StaticFilesHandler) and _called_as(application, StaticFilesHandler):
        inner = django_app(application.application, **options)
        return _StaticFilesApp(application, inner, **options)
    if isinstance(application, WSGIHandler) and _called_as(application, WSGIHandler):
        return DjangoApp(application, **options)
    return WSGIApp(application, **options)


def _called_as(application: WSGIHandler, cls: type[WSGIHandler]) -> bool:
    """Whether to call `application` runs the code that Django gave `cls`, and nothing else."""
    code = getattr(type(application).__call__, "__code__", None)
    return code is not None and code.co_filename == inspect.getfile(cls)
