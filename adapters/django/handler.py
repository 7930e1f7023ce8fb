"""The adapter for Django: it calls the handler of Django without `start_response`.

`DjangoApp` does what `WSGIHandler.__call__` does, but returns the response: the same environ, the
same signals, and a `close()` of every response. Code above `WSGIHandler` sees no difference.
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
    """A `SyncApp` that calls a handler of Django. All threads share one instance.

    `handler` is what `get_wsgi_application()` returns. `options` are those of `WSGIApp`.
    """

    app: WSGIHandler

    def __init__(self, handler: WSGIHandler, **options: Any) -> None:
        super().__init__(handler, **options)

    def __call__(self, request: Request) -> Response:
        """Process one request with Django's middleware. The server closes the response."""
        call = Call(request)
        environ = self.environ(request, call)
        _resume_thread(request)
        handler = self.app
        sender = handler.__class__
        # The context of the request is new, and its prefix is "/".
        if environ["SCRIPT_NAME"] or _forced_script_name():
            set_script_prefix(get_script_name(environ))
        request_started.send(sender=sender, environ=environ)
        django_request: Any = None
        try:
            django_request = handler.request_class(environ)
            response: Any = handler.get_response(django_request)
        except BaseException:
            # There is no response whose `close` would send this: database connections need it.
            if django_request is not None:
                django_request.close()
            request_finished.send(sender=sender)
            raise
        response._handler_class = sender  # The sender of request_finished.
        try:
            if call.refused is not None:
                raise call.refused
            # `items()` would look up each name again, which costs more than the rest.
            headers = list(response.headers._store.values())
            if response.cookies:
                headers += [("Set-Cookie", c.OutputString()) for c in response.cookies.values()]
            return Response(
                # An f-string would print the name of a status that is an enum member.
                "%d %s" % (response.status_code, response.reason_phrase),  # noqa: UP031
                headers,
                _stream(response, headers) if response.streaming else response.content,
                response.close,
            )
        except BaseException:
            response.close()  # The server does not have the response yet.
            raise


# Where Django keeps the settings that were read, until they change. `LazyObject` has a
# `__getattribute__` in Python, which takes 3,500 instructions.
_known_settings = object.__getattribute__(settings, "__dict__")


def _forced_script_name() -> str | None:
    """`settings.FORCE_SCRIPT_NAME`."""
    try:
        name: str | None = _known_settings["FORCE_SCRIPT_NAME"]
    except KeyError:  # The first look after a change.
        name = settings.FORCE_SCRIPT_NAME
    return name


class _WSGIWithDjango(WSGIApp):
    """A `WSGIApp` for an application that calls Django at some point."""

    def __call__(self, request: Request) -> Response:
        _resume_thread(request)
        return super().__call__(request)


def _stream(response: Any, headers: list[tuple[str, str]]) -> Any:
    """The body of a streaming response: a `FileBody` if it is a file, else its blocks."""
    if response.is_async:
        return _AsyncBlocks(response)
    file = getattr(response, "file_to_stream", None)
    body = None if file is None else file_body(file, headers)
    return _blocks(response) if body is None else body


def _blocks(response: HttpResponseBase) -> Iterator[bytes]:
    # A generator: `__iter__` runs code of the view, which must happen on the lent thread.
    yield from response


class _AsyncBlocks:
    """The body of an asynchronous streaming response.

    The event loop beside the threads iterates over it. Without a loop, Django reads all of it at
    once and warns.
    """

    def __init__(self, response: Any) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        return _blocks(self._response)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._response.__aiter__()  # type: ignore[no-any-return]


class _ThreadResources:
    """The caches and database connections that a thread keeps between requests.

    Django keeps its caches in the context, and each request has a new one: without this, every
    request would connect to Redis or Memcached again. Database connections belong to the thread.
    """

    def __init__(self) -> None:
        self._open_caches()

    def _open_caches(self) -> None:
        self._settings = caches.settings
        self._caches: dict[str, BaseCache] = {}
        for alias in caches:
            try:
                cache = caches[alias]
            except Exception:
                continue  # The view that uses this cache gets the error.
            if not isinstance(cache, (LocMemCache, DummyCache)):  # They have no connections.
                self._caches[alias] = cache

    def resume(self) -> None:
        """Put the caches into the context of the next request."""
        if caches.settings is not self._settings:  # A test has overridden them.
            self._close_caches()
            self._open_caches()
        for alias, cache in self._caches.items():
            caches[alias] = cache

    def close(self) -> None:
        """Close everything. Called when the thread ends."""
        try:
            connections.close_all()
        finally:
            self._close_caches()

    def _close_caches(self) -> None:
        with contextlib.ExitStack() as stack:  # It closes all, even if one of them raises.
            for cache in self._caches.values():
                stack.callback(cache.close)


def _resume_thread(request: Request) -> None:
    """Give the request what its thread has kept from the previous one."""
    assert request.channel is not None
    notes = request.channel.notes
    resources = notes.get(_ThreadResources)
    if resources is None:
        notes[_ThreadResources] = _ThreadResources()
    else:
        resources.resume()


class _FilesApp:
    """A `SyncApp`: the static files of `handler`, and `application` for every other request."""

    threadwell_interface = "sync"

    def __init__(
        self, handler: Any, application: SyncApp, *, script_name: str = "", **options: Any
    ) -> None:
        self._files = DjangoApp(handler, script_name=script_name, **options)
        self._handles: Callable[[str], bool] = handler._should_handle
        self._application = self.threadwell_wrapped = application
        self._script_name = script_name.rstrip("/")

    def __call__(self, request: Request) -> Response | None:
        path, prefix = unquote(request.path), self._script_name
        if path.startswith(prefix + "/"):
            path = path[len(prefix) :]
        return (self._files if self._handles(path) else self._application)(request)


# Modules of Django with handlers that serve files and pass other requests on.
_FILE_HANDLERS = ("django.contrib.staticfiles.handlers", "django.test.testcases")


def django_app(application: WSGIApplication, **options: Any) -> SyncApp:
    """A `SyncApp` for what `WSGI_APPLICATION` names.

    Handlers of Django are called without WSGI in between. Others are called through WSGI: WSGI
    middleware around Django, and a handler whose `__call__` is not that of Django, because a
    subclass or a monitoring agent has replaced it. `options` are those of `WSGIApp`.
    """
    if isinstance(application, WSGIHandler) and _is_own(WSGIHandler):
        called = next(cls for cls in type(application).__mro__ if "__call__" in vars(cls))
        if called is WSGIHandler:
            return DjangoApp(application, **options)
        if called.__module__ in _FILE_HANDLERS and _is_own(called):
            inner = django_app(application.application, **options)  # type: ignore[attr-defined]
            return _FilesApp(application, inner, **options)
    return _WSGIWithDjango(application, **options)


def _is_own(cls: type) -> bool:
    """Whether the `__call__` of `cls` is still the function that its module defines.

    The metadata of the function cannot tell: `functools.wraps` copies it to a wrapper.
    """
    call = vars(cls)["__call__"]
    return type(call) is FunctionType and call.__globals__ is vars(sys.modules[cls.__module__])
