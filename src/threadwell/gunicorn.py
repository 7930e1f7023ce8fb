"""A worker class for gunicorn: `gunicorn -k threadwell.gunicorn.ThreadWorker module:app`.

gunicorn manages the processes, signals, settings and logs. In each worker process, a `Server`
serves. Options that gunicorn does not have are read from `THREADWELL_*`.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from gunicorn.errors import AppImportError  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from gunicorn.sock import ssl_context  # type: ignore[import-untyped]
from gunicorn.workers.base import Worker  # type: ignore[import-untyped]

from .adapters.wsgi import Call, Environ, WSGIApp
from .environment import read_environment
from .process_setup import check_config, raise_descriptor_limit
from .worker import (
    OPTIONS,
    ConfigError,
    LifecycleEvent,
    Request,
    RequestStarted,
    Response,
    ResponseCompleted,
    Server,
    ServerConfig,
    app_kind,
)
from .worker.system.readiness import has_input
from .worker.watchdog import Watchdog

# Seconds between two notifications of the master that this worker is alive.
_NOTIFY_INTERVAL = 1.0
# A limit for a setting that means no limit in gunicorn.
_UNLIMITED = 2**20
# The groups of options that gunicorn decides.
_GROUPS_OF_GUNICORN = ("bind", "processes", "tls", "log", "metrics", "control")


class ThreadWorker(Worker):  # type: ignore[misc]
    """A gunicorn worker that serves a WSGI application on threads."""

    alive: bool

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:  # noqa: ARG003
        """Raise `RuntimeError` for settings that cannot be used. gunicorn calls it at the start."""
        if str(getattr(cfg, "proxy_protocol", "off")).lower() not in ("off", "false"):
            raise RuntimeError(
                "proxy_protocol: ThreadWorker takes it from THREADWELL_PROXY_PROTOCOL, with"
                " THREADWELL_TRUSTED_PROXIES; leave it out"
            )
        if "h2" in str(getattr(cfg, "http_protocols", "")):
            raise RuntimeError("http_protocols: ThreadWorker speaks HTTP/1.1; leave h2 out")
        try:
            check_config(server_config(cfg))
        except ConfigError as error:
            raise RuntimeError(str(error)) from None

    def load_wsgi(self) -> None:
        """Import the application. Raises `AppImportError` if it is not a WSGI application."""
        super().load_wsgi()
        if (kind := app_kind(self.wsgi)) != "wsgi":
            raise AppImportError(
                f"ThreadWorker serves WSGI applications, and this one is {kind};"
                " serve it with the command threadwell"
            )

    def run(self) -> None:
        """Serve until gunicorn stops this worker."""
        _share_log(self.log)
        raise_descriptor_limit()
        exchanges = Exchanges(self) if _needs_exchanges(self) else None
        server = Server(
            GunicornApp(self.wsgi, self.cfg, exchanges),
            server_config(self.cfg),
            sockets=[_duplicate(sock) for sock in self.sockets],
            ssl_context=ssl_context(self.cfg) if self.cfg.is_ssl else None,
            lifecycle_collector=exchanges,
        )
        server.start()
        watchdog = Watchdog(server.parts())
        while self.alive:
            # Without a notification for `timeout` seconds, the master kills this worker.
            if watchdog.age() <= 2 * _NOTIFY_INTERVAL:
                self.notify()
            self._wait()
            self.nr = server.served()
            if self.ppid != os.getppid():
                self.log.info("Parent changed, shutting down: %s", self)
                self.alive = False
            elif self.alive and self.nr >= self.max_requests:
                self.log.info("Autorestarting worker after %s requests.", self.nr)
                self.alive = False
        self._stop(server)

    def _stop(self, server: Server) -> None:
        """Stop `server`, and notify the master meanwhile, so that it does not kill this worker."""
        linger = min(server.config.timeouts.drain_idle, server.config.timeouts.keep_alive)
        stopper = threading.Thread(target=server.stop, kwargs={"linger": linger}, daemon=True)
        stopper.start()
        while stopper.is_alive():
            self.notify()
            stopper.join(self._interval())

    def _interval(self) -> float:
        return min(_NOTIFY_INTERVAL, self.timeout) if self.timeout else _NOTIFY_INTERVAL

    def _wait(self) -> None:
        """Wait for a signal, or until the next notification is due."""
        if has_input(self.PIPE[0], self._interval()):
            os.read(self.PIPE[0], 4096)


def server_config(cfg: Any) -> ServerConfig:
    """The configuration that the settings of gunicorn and the environment make.

    Raises `ConfigError`.
    """
    options = read_environment(
        option for option in OPTIONS if option.group not in _GROUPS_OF_GUNICORN
    )
    if cfg.reload:
        options.setdefault("static_refresh", True)
    return ServerConfig.from_options(
        **{
            **options,
            "workers": cfg.workers,  # They share the listeners.
            "threads": cfg.threads,
            "keep_alive": cfg.keepalive,
            "graceful_timeout": cfg.graceful_timeout,
            "limit_connections": cfg.worker_connections,
            "limit_request_line": cfg.limit_request_line or _UNLIMITED,
            "limit_fields": cfg.limit_request_fields,
            "limit_field_size": cfg.limit_request_field_size or _UNLIMITED,
        }
    )


def _duplicate(sock: Any) -> socket.socket:
    """A duplicate of a listening socket of gunicorn, which this process may close."""
    return socket.socket(fileno=os.dup(sock.fileno()))


def _share_log(log: Any) -> None:
    """Send the messages of threadwell to the error log of gunicorn."""
    logger = logging.getLogger("threadwell")
    logger.handlers = list(log.error_log.handlers)
    logger.setLevel(log.error_log.level)
    logger.propagate = False


# ---- The application ----------------------------------------------------------------------


class GunicornApp(WSGIApp):
    """A `SyncApp` that calls the WSGI application `app` with the environ of gunicorn."""

    def __init__(self, app: Any, cfg: Any, exchanges: Exchanges | None) -> None:
        script_name = os.environ.get("SCRIPT_NAME", "")
        super().__init__(app, script_name=script_name, multiprocess=cfg.workers > 1)
        self._exchanges = exchanges
        self._secure_headers = {
            "HTTP_" + name.replace("-", "_"): value
            for name, value in cfg.secure_scheme_headers.items()
        }
        self._is_trusted = trusted(cfg.forwarded_allow_ips)

    def __call__(self, request: Request) -> Response:
        if self._exchanges is None:
            return super().__call__(request)
        try:
            self._exchanges.raise_failure(request)
            response = super().__call__(request)
            self._exchanges.set_headers(request, response)
            return response
        finally:
            if getattr(request.channel, "hijacked", None) is not None:
                self._exchanges.finish_hijacked(request)

    def environ(self, request: Request, call: Call) -> Environ:
        """As `WSGIApp`; a trusted proxy sets the scheme (`secure_scheme_headers` of gunicorn)."""
        environ = super().environ(request, call)
        secure = [
            environ[name] == value
            for name, value in self._secure_headers.items()
            if name in environ
        ]
        if secure and self._is_trusted(environ["REMOTE_ADDR"]):
            environ["wsgi.url_scheme"] = "https" if all(secure) else "http"
        if self._exchanges is not None:
            self._exchanges.set_environ(request, environ)
        return environ


def trusted(allowed: Any) -> Callable[[str], bool]:
    """A function that tells if an address is in `allowed`. The empty one of a unix socket is."""
    texts = allowed.split(",") if isinstance(allowed, str) else allowed
    texts = [str(text).strip() for text in texts]
    named = filter(None, (text.strip("*") for text in texts))
    networks = [ipaddress.ip_network(text, strict=False) for text in named]

    @lru_cache(maxsize=1024)
    def is_trusted(address: str) -> bool:
        if not address or "*" in texts:
            return True
        client = ipaddress.ip_address(address.partition("%")[0])
        return any(client in network for network in networks)

    return is_trusted


# ---- The access log and the hooks ---------------------------------------------------------


def _needs_exchanges(worker: Any) -> bool:
    """Whether there is an access log or a hook that needs each request, which costs time."""
    log = worker.log
    logs = getattr(log, "access_log_enabled", True) or type(log) is not Logger
    settings = worker.cfg.settings
    hooks = (settings["pre_request"], settings["post_request"])
    return logs or any(hook.get() is not type(hook).default for hook in hooks)


class GunicornRequest:
    """A request for the hooks and the access log of gunicorn, without its body."""

    def __init__(self, request: Request) -> None:
        self.method = request.method
        self.uri = request.target
        self.path = request.path
        self.query = request.query
        self.fragment = ""
        self.version = (1, int(request.version[-1]))
        self.headers = [(name.upper(), value) for name, value in request.headers]
        self.scheme = request.scheme
        self.peer_addr = self.remote_addr = request.client


class GunicornResponse:
    """A response for the hooks and the access log of gunicorn."""

    def __init__(self, status: int, headers: Any, sent: int) -> None:
        self.status_code = status
        try:
            self.status = f"{status} {HTTPStatus(status).phrase}"
        except ValueError:
            self.status = f"{status}"
        self.headers = list(headers)
        self.sent = self.response_length = sent
        self.headers_sent = True


class _Exchange:
    """A request in progress."""

    environ: Environ
    headers: Any = ()
    #: The exception of `pre_request`, until it is raised or logged.
    failure: Exception | None = None

    def __init__(self, request: Request) -> None:
        self.req = GunicornRequest(request)
        # Used by the access log if the application was never called.
        self.environ = {
            "REQUEST_METHOD": request.method,
            "RAW_URI": request.target,
            "SERVER_PROTOCOL": f"HTTP/{request.version}",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query,
            "REMOTE_ADDR": request.client[0],
        }


class Exchanges:
    """Calls the hooks and the access log of gunicorn, as a `LifecycleCollector`.

    All serving threads call it. It needs no lock: each operation on the dictionary is atomic, and
    one thread at a time uses a key.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._open: dict[int, _Exchange] = {}

    def raise_failure(self, request: Request) -> None:
        """Raise what `pre_request` has raised, as the workers of gunicorn do."""
        exchange = self._open[id(request)]
        failure, exchange.failure = exchange.failure, None
        if failure is not None:
            raise failure

    def set_environ(self, request: Request, environ: Environ) -> None:
        self._open[id(request)].environ = environ

    def set_headers(self, request: Request, response: Response) -> None:
        self._open[id(request)].headers = response.headers

    def finish_hijacked(self, request: Request) -> None:
        """End a request whose connection was hijacked: there is no response to log."""
        self._finish(self._open.pop(id(request)), None)

    def record(self, event: LifecycleEvent) -> None:
        """See `LifecycleCollector`."""
        worker = self._worker
        if isinstance(event, RequestStarted):
            exchange = self._open[id(event.request)] = _Exchange(event.request)
            try:
                worker.cfg.pre_request(worker, exchange.req)
            except Exception as error:
                exchange.failure = error
        elif isinstance(event, ResponseCompleted) and event.request is not None:
            exchange = self._open.pop(id(event.request))
            resp = GunicornResponse(event.status, exchange.headers, event.body_bytes)
            seconds = timedelta(seconds=event.seconds)
            worker.log.access(resp, exchange.req, exchange.environ, seconds)
            self._finish(exchange, resp)

    def _finish(self, exchange: _Exchange, resp: GunicornResponse | None) -> None:
        worker = self._worker
        if exchange.failure is not None:  # The application was not called: a static file.
            worker.log.error("Exception in pre_request hook", exc_info=exchange.failure)
        try:
            worker.cfg.post_request(worker, exchange.req, exchange.environ, resp)
        except Exception:
            worker.log.exception("Exception in post_request hook")
