"""The adapter for Flask. It saves the work that WSGI needs between Flask and a server.

`FlaskApp(app)` runs the steps of `Flask.wsgi_app` itself and takes the body from the response
object, so that a complete response is sent at once. It falls back to WSGI if anything was changed:
middleware on `wsgi_app`, an overridden or patched `wsgi_app` or `__call__`, another response class.
"""

from __future__ import annotations

import inspect
import sys
from types import FunctionType
from typing import TYPE_CHECKING, Any

import flask.app
import werkzeug.wrappers.response as werkzeug_response
from flask import Flask
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response as FlaskResponse

from threadwell.adapters.wsgi import Call, WSGIApp
from threadwell.worker import Response

if TYPE_CHECKING:
    from threadwell.adapters.wsgi import Environ
    from threadwell.worker import Request

# The methods behind `Response.__call__`. A class that overrides one of them is called through WSGI.
_RESPONSE_METHODS = (
    "__call__",
    "get_wsgi_response",
    "get_wsgi_headers",
    "get_app_iter",
    "iter_encoded",
    "close",
)
# The lengths of `Location` and `Content-Location`, whose values Werkzeug turns into URIs.
_LOCATION_LENGTHS = frozenset((8, 16))


class FlaskApp(WSGIApp):
    """A `SyncApp` that does what a Flask application does, in fewer steps.

    `app` may still be changed afterwards: its hooks, its configuration, its `wsgi_app`. `options`
    are those of `WSGIApp`. Any thread may call the instance.
    """

    def __init__(self, app: Flask, **options: Any) -> None:
        super().__init__(app, **options)
        self._flask = app
        cls = type(app)
        # Flask's own functions. If the class has others by now, they are called instead.
        self._wsgi_app: Any = None
        self._call: Any = None
        if (
            _is_original(cls.wsgi_app, "wsgi_app")
            and _is_original(cls.__call__, "__call__")
            and _steps_are_known()
        ):
            self._wsgi_app, self._call = cls.wsgi_app, cls.__call__
        # The response class of the application, once it is known to be unchanged. No other class is
        # remembered: flask-sock makes one for each request, which holds all of that request.
        self._unchanged_kind: type | None = None

    def __call__(self, request: Request) -> Response:
        app = self._flask
        cls = type(app)
        if (
            cls.wsgi_app is not self._wsgi_app
            or cls.__call__ is not self._call
            or "wsgi_app" in app.__dict__
        ):
            return super().__call__(request)
        call = Call(request)
        environ = self.environ(request, call)
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
            # Some views replace the headers by a dict.
            headers = response.headers
            fields = list(iter(headers)) if type(headers) is Headers else None
            body = None if fields is None else self._whole_body(response, environ, fields)
            if fields is not None and body is not None and call.is_simple:
                return Response(response.status, fields, body, None, None)
            start_response: Any = call.start_response
            blocks = response(environ, start_response)
        finally:
            if error is not None and app.should_ignore_error(error):
                error = None
            context.pop(error)
        return self.response(call, blocks)

    def _whole_body(
        self, response: FlaskResponse, environ: Environ, fields: list[tuple[str, str]]
    ) -> bytes | None:
        """The body, if the response with these header fields is complete and needs no further
        treatment; else None."""
        kind = type(response)
        status = response.status_code
        if (
            (kind is not self._unchanged_kind and not self._is_unchanged(kind))
            or status < 200
            or status in {204, 304}
            or environ["REQUEST_METHOD"] == "HEAD"
            or getattr(response, "_on_close", True)
            or response.direct_passthrough
        ):
            return None
        blocks = response.response
        if type(blocks) is not list:
            return None
        for name, _ in fields:
            if len(name) in _LOCATION_LENGTHS and name.lower().endswith("location"):
                return None
        if len(blocks) == 1 and type(blocks[0]) is bytes:
            return blocks[0]
        return b"".join(response.iter_encoded())

    def _is_unchanged(self, kind: type[FlaskResponse]) -> bool:
        unchanged = all(_is_original(getattr(kind, name), name) for name in _RESPONSE_METHODS)
        if unchanged and kind is self._flask.response_class:
            self._unchanged_kind = kind
        return unchanged


_SOURCES = (flask.app.__file__, werkzeug_response.__file__)


def _is_original(function: Any, name: str) -> bool:
    """Whether `function` is the one that Flask or Werkzeug define, and not a wrapper of it."""
    if type(function) is not FunctionType:
        return False
    code = function.__code__
    return code.co_name == name and code.co_filename in _SOURCES


def _steps_are_known() -> bool:
    """Whether this version of Flask has the methods that are called here, with these arguments."""
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
