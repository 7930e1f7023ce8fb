"""A worker class for gunicorn: `gunicorn -k threadwell.gunicorn.ThreadWorker module:app`.

gunicorn has the processes, the signals, the settings and the logs; in each process a `Server`
serves. The settings are gunicorn's; options that it has no word for are read from `THREADWELL_*`.
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
from .process_setup import raise_descriptor_limit
from .worker import OPTIONS, ConfigError, Request, Response, Server, ServerConfig, app_kind
from .worker.lifecycle import LifecycleEvent, RequestStarted, ResponseCompleted
from .worker.system.readiness import has_input
from .worker.watchdog import Watchdog

# Seconds between two words to the master that all is well.
_LOOK = 1.0
# What a limit is where gunicorn has none.
_UNLIMITED = 2**20
# What is gunicorn's to say, all of it.
_GROUPS_OF_GUNICORN = ("bind", "processes", "tls", "log", "metrics")


class ThreadWorker(Worker):  # type: ignore[misc]
    """Serves a WSGI application on threads, as the command `threadwell` does."""

    alive: bool

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:  # noqa: ARG003
        """Refuse what cannot be done here. gunicorn calls it at the start."""
        if str(getattr(cfg, "proxy_protocol", "off")).lower() not in ("off", "false"):
            raise RuntimeError(
                "proxy_protocol: ThreadWorker has it from THREADWELL_PROXY_PROTOCOL, with"
                " THREADWELL_TRUSTED_PROXIES; leave it out"
            )
        if "h2" in str(getattr(cfg, "http_protocols", "")):
            raise RuntimeError("http_protocols: ThreadWorker speaks HTTP/1.1; leave h2 out")
        try:
            server_config(cfg)
        except ConfigError as error:
            raise RuntimeError(str(error)) from None

    def load_wsgi(self) -> None:
        """Import the application. Raises `AppImportError` for one that is not WSGI."""
        super().load_wsgi()
        if (kind := app_kind(self.wsgi)) != "wsgi":
            raise AppImportError(
                f"ThreadWorker serves WSGI applications, and this is one of the kind {kind};"
                " serve it by the command threadwell"
            )

    def run(self) -> None:
        """Serve until gunicorn says otherwise."""
        _share_log(self.log)
        raise_descriptor_limit()
        exchanges = Exchanges(self) if _is_watched(self) else None
        server = Server(
            GunicornApp(self.wsgi, self.cfg, exchanges),
            server_config(self.cfg),
            sockets=[_copy_of(sock) for sock in self.sockets],
            ssl_context=ssl_context(self.cfg) if self.cfg.is_ssl else None,
            lifecycle_collector=exchanges,
        )
        server.start()
        watchdog = Watchdog(server.parts())
        while self.alive:
            if watchdog.age() <= 2 * _LOOK:  # else the master counts the seconds
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
        """Answer what is in flight, which the master must not take for hanging."""
        linger = min(server.config.timeouts.drain_idle, server.config.timeouts.keep_alive)
        stopper = threading.Thread(target=server.stop, kwargs={"linger": linger}, daemon=True)
        stopper.start()
        while stopper.is_alive():
            self.notify()
            stopper.join(self._interval())

    def _interval(self) -> float:
        return min(_LOOK, self.timeout) if self.timeout else _LOOK

    def _wait(self) -> None:
        """Until a signal comes, or for a moment."""
        if has_input(self.PIPE[0], self._interval()):
            os.read(self.PIPE[0], 4096)


def server_config(cfg: Any) -> ServerConfig:
    """gunicorn's settings as those of a `Server`. Raises `ConfigError`."""
    options: dict[str, Any] = {}
    for option in OPTIONS:
        variable = f"THREADWELL_{option.name.upper()}"
        value = os.environ.get(variable)
        if value and option.group not in _GROUPS_OF_GUNICORN:
            try:
                options[option.name] = option.convert(value.split() if option.multiple else value)
            except ConfigError as error:
                raise ConfigError(f"{variable}: {str(error).partition(': ')[2]}") from None
    if cfg.reload:
        options.setdefault("static_refresh", True)
    return ServerConfig.from_options(
        **{
            **options,
            "workers": cfg.workers,  # which take turns at the listeners
            "threads": cfg.threads,
            "keep_alive": cfg.keepalive,
            "graceful_timeout": cfg.graceful_timeout,
            "limit_connections": cfg.worker_connections,
            "limit_request_line": cfg.limit_request_line or _UNLIMITED,
            "limit_fields": cfg.limit_request_fields,
            "limit_field_size": cfg.limit_request_field_size or _UNLIMITED,
        }
    )


def _copy_of(sock: Any) -> socket.socket:
    """A listening socket of gunicorn's, for this process to close."""
    return socket.socket(fileno=os.dup(sock.fileno()))


def _share_log(log: Any) -> None:
    """Let gunicorn's error log have what threadwell has to say."""
    logger = logging.getLogger("threadwell")
    logger.handlers = list(log.error_log.handlers)
    logger.setLevel(log.error_log.level)
    logger.propagate = False


# ---- The application ----------------------------------------------------------------------


class GunicornApp(WSGIApp):
    """The WSGI application `app` as gunicorn would call it."""

    def __init__(self, app: Any, cfg: Any, exchanges: Exchanges | None) -> None:
        script_name = os.environ.get("SCRIPT_NAME", "")
        super().__init__(app, script_name=script_name, multiprocess=cfg.workers > 1)
        self._exchanges = exchanges
        self._secure = {
            "HTTP_" + name.replace("-", "_"): value
            for name, value in cfg.secure_scheme_headers.items()
        }
        self._is_trusted = trusted(cfg.forwarded_allow_ips)

    def __call__(self, request: Request) -> Response:
        if self._exchanges is None:
            return super().__call__(request)
        try:
            self._exchanges.begun(request)
            response = super().__call__(request)
            self._exchanges.answered(request, response)
            return response
        finally:
            if getattr(request.channel, "hijacked", None) is not None:
                self._exchanges.hijacked(request)

    def environ(self, request: Request, call: Call) -> Environ:
        """As there; a proxy that gunicorn trusts may say that it was asked over TLS."""
        environ = super().environ(request, call)
        said = [environ[name] == value for name, value in self._secure.items() if name in environ]
        if said and self._is_trusted(environ["REMOTE_ADDR"]):
            environ["wsgi.url_scheme"] = "https" if all(said) else "http"
        if self._exchanges is not None:
            self._exchanges.called(request, environ)
        return environ


def trusted(allowed: Any) -> Callable[[str], bool]:
    """Whether an address is among `allowed`; a unix socket, which has none, always is."""
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


def _is_watched(worker: Any) -> bool:
    """Whether somebody wants to know of each request: it costs, so only then."""
    log = worker.log
    logs = getattr(log, "access_log_enabled", True) or type(log) is not Logger
    settings = worker.cfg.settings
    hooks = (settings["pre_request"], settings["post_request"])
    return logs or any(hook.get() is not type(hook).default for hook in hooks)


class GunicornRequest:
    """A request as gunicorn's hooks and log know one. It cannot be read from."""

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
    """An answer as gunicorn's hooks and log know one."""

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
    """A request under way, with what is known of it."""

    environ: Environ
    headers: Any = ()
    #: What `pre_request` has raised, until somebody was told.
    failure: Exception | None = None

    def __init__(self, request: Request) -> None:
        self.req = GunicornRequest(request)
        # for an application that was never called
        self.environ = {
            "REQUEST_METHOD": request.method,
            "RAW_URI": request.target,
            "SERVER_PROTOCOL": f"HTTP/{request.version}",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query,
            "REMOTE_ADDR": request.client[0],
        }


class Exchanges:
    """Calls gunicorn's hooks and its access log. The threads that serve call it.

    The dictionary's operations are single ones, and each key is one thread's at a time.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._open: dict[int, _Exchange] = {}

    def begun(self, request: Request) -> None:
        """What `pre_request` raises is the answer's trouble, as with gunicorn's own workers."""
        exchange = self._open[id(request)]
        failure, exchange.failure = exchange.failure, None
        if failure is not None:
            raise failure

    def called(self, request: Request, environ: Environ) -> None:
        self._open[id(request)].environ = environ

    def answered(self, request: Request, response: Response) -> None:
        self._open[id(request)].headers = response.headers

    def hijacked(self, request: Request) -> None:
        """The application has answered by itself: there is nothing to log."""
        self._over(self._open.pop(id(request)), None)

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
            self._over(exchange, resp)

    def _over(self, exchange: _Exchange, resp: GunicornResponse | None) -> None:
        worker = self._worker
        if exchange.failure is not None:  # a static file was the answer
            worker.log.error("Exception in pre_request hook", exc_info=exchange.failure)
        try:
            worker.cfg.post_request(worker, exchange.req, exchange.environ, resp)
        except Exception:
            worker.log.exception("Exception in post_request hook")
