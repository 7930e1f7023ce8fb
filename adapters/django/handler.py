"""Django's handler as a `SyncApp`, without `start_response` between the two.

It is `WSGIHandler.__call__` with an answer that is returned: the same environ, the same signals,
and `close()` of every response, so that nothing above Django's WSGI entry can tell.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from types import FunctionType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.handlers.wsgi import WSGIHandler, get_script_name
from django.core.signals import request_finished, request_started
from django.db import connections
from django.urls import set_script_prefix

from threadwell.adapters.wsgi import Call, WSGIApp, WSGIApplication, file_body
from threadwell.worker import Request, Response

if TYPE_CHECKING:
    from django.core.cache.backends.base import BaseCache
    from django.http.response import HttpResponseBase

    from threadwell.worker import SyncApp


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
        _resume(request)
        handler = self.app
        sender = handler.__class__
        # the request's context is new, and "/" is what it has
        if environ["SCRIPT_NAME"] or settings.FORCE_SCRIPT_NAME:
            set_script_prefix(get_script_name(environ))
        request_started.send(sender=sender, environ=environ)
        django_request: Any = None
        try:
            django_request = handler.request_class(environ)
            response: Any = handler.get_response(django_request)
        except BaseException:
            # Nothing to close, but what has begun must end: connections go back here.
            if django_request is not None:
                django_request.close()
            request_finished.send(sender=sender)
            raise
        response._handler_class = sender  # what request_finished says it comes from
        try:
            if call.refused is not None:
                raise call.refused
            # `items()` of a mapping looks each name up again, which costs more than all the rest
            headers = list(response.headers._store.values())
            if response.cookies:
                headers += [("Set-Cookie", c.OutputString()) for c in response.cookies.values()]
            return Response(
                # a status may be of an enumeration, which says its name elsewhere
                "%d %s" % (response.status_code, response.reason_phrase),  # noqa: UP031
                headers,
                _stream(response, headers) if response.streaming else response.content,
                response.close,
            )
        except BaseException:
            response.close()  # the server has no response to close yet
            raise


class _AroundDjango(WSGIApp):
    """`WSGIApp`, for an application with Django somewhere in it."""

    def __call__(self, request: Request) -> Response:
        _resume(request)
        return super().__call__(request)


def _stream(response: Any, headers: list[tuple[str, str]]) -> Any:
    """The body of a streaming response: by the kernel if it is a file, else block by block."""
    if response.is_async:
        return _AsyncBlocks(response)
    file = getattr(response, "file_to_stream", None)
    body = None if file is None else file_body(file, headers)
    return _blocks(response) if body is None else body


def _blocks(response: HttpResponseBase) -> Iterator[bytes]:
    # Only now: to iterate is to run the view's code, which must happen on its lent thread.
    yield from response


class _AsyncBlocks:
    """An asynchronous body: for the loop beside the threads. Without one it is consumed at once,
    with Django's own warning."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        return _blocks(self._response)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._response.__aiter__()  # type: ignore[no-any-return]


class _Thread:
    """What a serving thread keeps of Django from one request to the next.

    Each request has a context of its own, and Django's caches live in the context: without this
    every request would connect to Redis or Memcached anew. Database connections are the thread's.
    """

    def __init__(self) -> None:
        self._make()

    def _make(self) -> None:
        self._settings = caches.settings
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
        if caches.settings is not self._settings:  # tests override them
            self._close_caches()
            self._make()
        for alias, cache in self._caches.items():
            caches[alias] = cache

    def close(self) -> None:
        """The thread ends: nothing of it stays open."""
        try:
            connections.close_all()
        finally:
            self._close_caches()

    def _close_caches(self) -> None:
        with contextlib.ExitStack() as stack:  # each of them, whatever another one raises
            for cache in self._caches.values():
                stack.callback(cache.close)


def _resume(request: Request) -> None:
    """Give the request what its thread has kept."""
    assert request.channel is not None
    notes = request.channel.notes
    thread = notes.get(_Thread)
    if thread is None:
        notes[_Thread] = _Thread()
    else:
        thread.resume()


class _FilesApp:
    """A `SyncApp` around a handler for static files: its files, and `application` for all else."""

    threadwell_interface = "sync"

    def __init__(
        self, handler: Any, application: SyncApp, *, script_name: str = "", **options: Any
    ) -> None:
        self._files = DjangoApp(handler, script_name=script_name, **options)
        self._handles: Callable[[str], bool] = handler._should_handle
        self._application = application
        self._script_name = script_name.rstrip("/")

    def __call__(self, request: Request) -> Response | None:
        path, prefix = unquote(request.path), self._script_name
        if path.startswith(prefix + "/"):
            path = path[len(prefix) :]
        return (self._files if self._handles(path) else self._application)(request)


# Where Django has handlers that serve files, and pass on what is none.
_FILES = ("django.contrib.staticfiles.handlers", "django.test.testcases")


def django_app(application: WSGIApplication, **options: Any) -> SyncApp:
    """A `SyncApp` for what `WSGI_APPLICATION` names, as direct as it allows.

    Django's own handlers are called without WSGI between. WSGI middleware around them, and a
    handler whose `__call__` is not Django's - a subclass, or one that a monitoring agent has
    replaced - are served as any WSGI application. `options` are those of `WSGIApp`.
    """
    if isinstance(application, WSGIHandler) and _is_own(WSGIHandler):
        called = next(cls for cls in type(application).__mro__ if "__call__" in vars(cls))
        if called is WSGIHandler:
            return DjangoApp(application, **options)
        if called.__module__ in _FILES and _is_own(called):
            inner = django_app(application.application, **options)  # type: ignore[attr-defined]
            return _FilesApp(application, inner, **options)
    return _AroundDjango(application, **options)


def _is_own(cls: type) -> bool:
    """Whether the `__call__` of `cls` is still what its module has made it.

    What a wrapper says of itself is no help: it may repeat all that the function says.
    """
    call = vars(cls)["__call__"]
    return type(call) is FunctionType and call.__globals__ is vars(sys.modules[cls.__module__])
