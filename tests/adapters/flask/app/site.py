"""A Flask application with responses of every kind, for the tests of `FlaskApp`."""

from __future__ import annotations

import contextvars
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import flask
from werkzeug.wrappers import Response

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE")


class Shouting(flask.Response):
    """A response that makes its body when it is asked for."""

    def iter_encoded(self) -> Iterator[bytes]:
        for block in super().iter_encoded():
            yield block.upper()


class Site:
    """An application with every kind of answer, and what was torn down and closed."""

    def __init__(self, folder: Path) -> None:
        self.seen: list[str] = []
        self.file = folder / "file.bin"
        self.file.write_bytes(bytes(range(256)) * 1000)
        os.utime(self.file, (1_700_000_000, 1_700_000_000))
        self.app = app = flask.Flask(__name__)
        app.secret_key = "for a test"
        self._hooks(app)
        self._answers(app)
        self._special(app)

    def note(self, what: str) -> None:
        self.seen.append(what)

    def _hooks(self, app: flask.Flask) -> None:
        @app.teardown_request
        def teardown(error: BaseException | None) -> None:
            self.note(f"teardown {flask.request.path} {type(error).__name__}")

        @app.teardown_appcontext
        def appcontext(_error: BaseException | None) -> None:
            self.note("appcontext")

        @app.after_request
        def after(response: flask.Response) -> flask.Response:
            response.headers["X-After"] = "1"
            return response

        @app.errorhandler(LookupError)
        def lookup(error: LookupError) -> tuple[str, int]:
            return f"handled: {error}", 404

    def _answers(self, app: flask.Flask) -> None:
        app.add_url_rule(
            "/text", view_func=lambda: "täxt", endpoint="text", methods=["GET", "POST"]
        )
        app.add_url_rule("/empty", view_func=lambda: "", endpoint="empty")
        app.add_url_rule("/bytes", view_func=lambda: b"\x00\xff", endpoint="bytes")
        app.add_url_rule("/json", view_func=lambda: {"a": [1, "ä"]}, endpoint="json")
        app.add_url_rule(
            "/tuple", view_func=lambda: ("made", 201, {"X-Own": "ä b"}), endpoint="tuple"
        )
        app.add_url_rule("/none", view_func=lambda: ("", 204), endpoint="none")
        app.add_url_rule("/folder/", view_func=lambda: "in it", endpoint="folder")
        app.add_url_rule("/away", view_func=lambda: flask.redirect("/täxt?a=b"), endpoint="away")
        app.add_url_rule("/blocks", view_func=lambda: Response(["one ", b"two"]), endpoint="blocks")
        app.add_url_rule("/stream", view_func=lambda: (x for x in ("a", "b")), endpoint="stream")
        app.add_url_rule("/shout", view_func=lambda: Shouting("quiet"), endpoint="shout")
        app.add_url_rule("/file", view_func=lambda: flask.send_file(self.file), endpoint="file")

        @app.get("/session")
        def session() -> str:
            flask.session["visits"] = flask.session.get("visits", 0) + 1
            return str(flask.session["visits"])

        @app.get("/fail")
        def fail() -> str:
            raise ZeroDivisionError

        @app.get("/lookup")
        def failed_lookup() -> str:
            raise KeyError("gone")

        @app.get("/abort")
        def abort() -> str:
            flask.abort(418, "short and stout")

    def _special(self, app: flask.Flask) -> None:
        @app.get("/closing")
        def closing() -> flask.Response:
            response = flask.make_response("then closed")
            response.call_on_close(lambda: self.note("closed"))
            return response

        @app.get("/etag")
        def etag() -> Response:
            response = flask.make_response("tagged")
            response.set_etag("x")
            return response.make_conditional(flask.request)

        @app.get("/dict")
        def dict_of_headers() -> Response:
            response = flask.make_response("with headers of its own")
            response.headers = {"X-Own": "1"}  # type: ignore[assignment]
            return response

        @app.get("/content-location")
        def content_location() -> Response:
            return Response("there", headers={"content-LOCATION": "/ä"})

        @app.get("/wsgi")
        def wsgi() -> Any:
            def other(environ: Any, start_response: Any) -> list[bytes]:
                start_response("200 OK", [("X-Other", "1")])
                return [b"by another WSGI application"]

            return other

        @app.post("/form")
        def form() -> Any:
            return {"form": flask.request.form, "args": flask.request.args}

        @app.get("/context")
        def context() -> Any:
            answer = {"g": flask.g.get("x"), "variable": VARIABLE.get("")}
            flask.g.x = VARIABLE.set("left behind").var.get()
            return answer

        @app.get("/forever")
        def forever() -> flask.Response:
            def blocks() -> Iterator[str]:
                try:
                    while True:
                        yield f"{flask.request.path}\n"
                        time.sleep(0.01)
                finally:
                    self.note("stream closed")

            return flask.Response(flask.stream_with_context(blocks()))


class Counting:
    """Middleware that counts, and says so."""

    def __init__(self, wsgi_app: Any) -> None:
        self.wsgi_app = wsgi_app
        self.calls = 0

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        self.calls += 1
        return self.wsgi_app(environ, start_response)  # type: ignore[no-any-return]
