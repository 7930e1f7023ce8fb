"""Flask on a `SyncApp`: what WSGI would carry between the two and nobody would look at is left out.

`FlaskApp(app)` runs the steps of `Flask.wsgi_app` itself and takes the body from the response
object, so that a finished answer goes out as one. Whatever was put around the application or into
its place is called as it would be by any WSGI server: middleware on `wsgi_app`, an overridden or
patched `wsgi_app` or `__call__`, responses of another kind.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import TYPE_CHECKING, Any

import flask.app
import werkzeug.wrappers.response as werkzeug_response
from flask import Flask
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

from threadwell.adapters.wsgi import WSGIApp

if TYPE_CHECKING:
    from threadwell.adapters.wsgi import Environ

# What `Response.__call__` comes to; a class that changes one of them is asked through the call.
_OF_A_RESPONSE = (
    "__call__",
    "get_wsgi_response",
    "get_wsgi_headers",
    "get_app_iter",
    "iter_encoded",
    "close",
)
# The lengths of `Location` and `Content-Location`, which Werkzeug makes URIs of.
_LOCATION_LENGTHS = (8, 16)


class FlaskApp(WSGIApp):
    """A `SyncApp` around a Flask application; the arguments are those of `WSGIApp`.

    `app` may be changed afterwards as ever: its hooks, its configuration, its `wsgi_app`.
    """

    def __init__(self, app: Flask, **options: Any) -> None:
        super().__init__(_Steps(app), **options)


class _Steps:
    """A WSGI application that does what `app` does. Any thread may call it."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        cls = type(app)
        #: The functions that are known; others may have been put into their place.
        self._wsgi_app: Any = None
        self._call: Any = None
        if (
            _is_original(cls.wsgi_app, "wsgi_app")
            and _is_original(cls.__call__, "__call__")
            and _steps_are_known()
        ):
            self._wsgi_app, self._call = cls.wsgi_app, cls.__call__
        self._plain_kinds: dict[type, bool] = {}

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        app = self._app
        cls = type(app)
        if (
            cls.wsgi_app is not self._wsgi_app
            or cls.__call__ is not self._call
            or "wsgi_app" in app.__dict__
            or "werkzeug.debug.preserve_context" in environ
        ):
            return app(environ, start_response)
        context = app.request_context(environ)
        error: BaseException | None = None
        try:
            try:
                context.push()
                response = app.full_dispatch_request()
            except Exception as raised:
                error = raised
                response = app.handle_exception(raised)
            except:
                error = sys.exc_info()[1]
                raise
            body = self._whole_body(response, environ)
            if body is None:
                return response(environ, start_response)
            start_response(response.status, response.headers.to_wsgi_list())
            return [body]
        finally:
            if error is not None and app.should_ignore_error(error):
                error = None
            context.pop(error)

    def _whole_body(self, response: Response, environ: Environ) -> bytes | None:
        """The body, if nothing is left to do for the answer but to send it; else None."""
        kind = type(response)
        plain = self._plain_kinds.get(kind)
        if plain is None:
            plain = self._plain_kinds[kind] = all(
                _is_original(getattr(kind, name), name) for name in _OF_A_RESPONSE
            )
        status = response.status_code
        if (
            not plain
            or status < 200
            or status in (204, 304)
            or environ["REQUEST_METHOD"] == "HEAD"
            or getattr(response, "_on_close", True)
            or response.direct_passthrough
        ):
            return None
        blocks = response.response
        # views put dicts in the place of the headers, too
        if type(blocks) is not list or type(response.headers) is not Headers:
            return None
        for name, _ in response.headers:
            if len(name) in _LOCATION_LENGTHS and name.lower().endswith("location"):
                return None
        if len(blocks) == 1 and type(blocks[0]) is bytes:
            return blocks[0]
        return b"".join(response.iter_encoded())


_SOURCES = (flask.app.__file__, werkzeug_response.__file__)


def _is_original(function: Any, name: str) -> bool:
    """Whether `function` is the one that Flask or Werkzeug define, and nobody has wrapped it."""
    if type(function) is not FunctionType:
        return False
    code = function.__code__
    return code.co_name == name and code.co_filename in _SOURCES


def _steps_are_known() -> bool:
    """Whether this Flask has the steps that are taken here, with the arguments given here."""
    try:
        steps = (
            (Flask.request_context, ["self", "environ"]),
            (Flask.full_dispatch_request, ["self"]),
            (Flask.handle_exception, ["self", "e"]),
            (Flask.should_ignore_error, ["self", "error"]),
        )
        return all(list(inspect.signature(step).parameters) == names for step, names in steps)
    except (AttributeError, ValueError):
        return False
