"""OpenTelemetry's own instrumentation, unmodified: a span a request, and none in another's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest
from opentelemetry import context, trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as ASGIMiddleware
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from threadwell import ThreadedServer

from ..helpers.asgi_tools import Receive, Scope, Send, answer, no_lifespan
from ..helpers.waiting import until
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

PARENT = "0af7651916cd43dd8448eb211c80319c"


class Tracing:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("tests")

    def spans(self, count: int, kind: trace.SpanKind = trace.SpanKind.SERVER) -> list[ReadableSpan]:
        """Those of `kind`, once there are `count`."""

        def found() -> list[ReadableSpan]:
            return [span for span in self.exporter.get_finished_spans() if span.kind is kind]

        until(lambda: len(found()) >= count)
        assert len(found()) == count
        return found()


@pytest.fixture
def tracing() -> Iterator[Tracing]:
    tracing = Tracing()
    yield tracing
    tracing.provider.shutdown()


def trace_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.trace_id


@pytest.fixture
def wsgi(tracing: Tracing) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        current = trace.get_current_span().get_span_context()
        with tracing.tracer.start_as_current_span("inner"):
            start_response("200 OK", [("Content-Type", "text/plain")])
            body = f"{current.trace_id:032x}".encode()
        if environ["PATH_INFO"] == "/stream":
            return iter([body, b""])
        if environ["PATH_INFO"] == "/fail":
            raise ValueError("on purpose")
        return [body]

    return OpenTelemetryMiddleware(app, tracer_provider=tracing.provider)


@pytest.mark.parametrize("path", ["/", "/stream"])
def test_a_wsgi_application(
    serve: Serve, connect: Connect, tracing: Tracing, wsgi: Any, path: str
) -> None:
    client = connect(serve(wsgi))
    told = [client.get(path).body.decode() for _ in range(3)]
    spans = tracing.spans(3)
    assert [f"{trace_id(span):032x}" for span in spans] == told
    assert len(set(told)) == 3
    assert all(span.parent is None for span in spans)
    inner = tracing.spans(3, trace.SpanKind.INTERNAL)
    assert [each.parent.span_id for each in inner if each.parent] == [
        span.context.span_id for span in spans if span.context
    ]


def test_the_callers_trace_goes_on(
    serve: Serve, connect: Connect, tracing: Tracing, wsgi: Any
) -> None:
    header = f"traceparent: 00-{PARENT}-b7ad6b7169203331-01\r\n"
    client = connect(serve(wsgi))
    assert client.get(headers=header).body.decode() == PARENT
    assert client.get().body.decode() != PARENT
    first, second = tracing.spans(2)
    assert trace_id(first) == int(PARENT, 16)
    assert trace_id(second) != int(PARENT, 16)


def test_an_error_is_in_its_span(
    serve: Serve, connect: Connect, tracing: Tracing, wsgi: Any
) -> None:
    assert connect(serve(wsgi)).get("/fail").status == 500
    [span] = tracing.spans(1)
    assert span.status.status_code is trace.StatusCode.ERROR


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
@pytest.mark.parametrize("served", ["direct", "wsgi"])
def test_a_flask_application(serve: Serve, connect: Connect, tracing: Tracing, served: str) -> None:
    """Called directly, and as a WSGI application."""
    app = flask.Flask(__name__)

    @app.get("/items/<int:number>")
    def item(number: int) -> str:
        return f"{trace.get_current_span().get_span_context().trace_id:032x}"

    @app.get("/stream")
    def stream() -> flask.Response:
        return flask.Response(iter(["one", "two"]))

    FlaskInstrumentor().instrument_app(app, tracer_provider=tracing.provider)
    try:
        client = connect(serve(app if served == "direct" else app.wsgi_app, interface="wsgi"))
        told = [client.get(f"/items/{number}").body.decode() for number in range(3)]
        assert client.get("/stream").body == b"onetwo"
        spans = tracing.spans(4)
        assert [f"{trace_id(span):032x}" for span in spans[:3]] == told
        assert {span.name for span in spans} == {"GET /items/<int:number>", "GET /stream"}
        assert spans[0].attributes is not None
        assert spans[0].attributes.get("http.status_code") == 200
    finally:
        FlaskInstrumentor().uninstrument_app(app)


def test_an_asgi_application(serve: Serve, connect: Connect, tracing: Tracing) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        current = trace.get_current_span().get_span_context()
        await answer(send, f"{current.trace_id:032x}".encode())

    client = connect(serve(ASGIMiddleware(app, tracer_provider=tracing.provider)))
    told = [client.get().body.decode() for _ in range(3)]
    assert [f"{trace_id(span):032x}" for span in tracing.spans(3)] == told
    assert len(set(told)) == 3


def test_requests_at_the_same_time_are_apart(
    serve: Serve, connect: Connect, tracing: Tracing
) -> None:
    barrier = threading.Barrier(4)

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        before = trace.get_current_span().get_span_context().trace_id
        barrier.wait(20)
        assert trace.get_current_span().get_span_context().trace_id == before
        start_response("200 OK", [])
        return [b""]

    middleware = OpenTelemetryMiddleware(app, tracer_provider=tracing.provider)
    server = serve(middleware, threads=4)
    clients = [connect(server) for _ in range(4)]
    for client in clients:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert {client.answer().status for client in clients} == {200}
    assert len({trace_id(span) for span in tracing.spans(4)}) == 4


def test_what_an_application_forgets_is_not_there_for_the_next(
    serve: Serve, connect: Connect
) -> None:
    """A token that is never given back stays in its request's context."""
    key = context.create_key("left")

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        before = context.get_value(key)
        context.attach(context.set_value(key, environ["PATH_INFO"]))
        start_response("200 OK", [])
        return [str(before).encode()]

    client = connect(serve(app, threads=1))
    assert [client.get(path).body for path in ("/one", "/two")] == [b"None", b"None"]
