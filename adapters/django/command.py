"""`runserver`, with loopless in it: what the commands of both apps are made of."""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.management.commands.runserver import Command as DjangoCommand
from django.db import connections
from django.utils import autoreload as django_autoreload

from loopless.banner import gil_advice, gil_state, made_up_certificate
from loopless.binding import open_sockets
from loopless.process import check_files, configure_logging, raise_descriptor_limit
from loopless.version import __version__
from loopless.worker import ConfigError, Server, ServerConfig, StartupError

from . import autoreload
from .handler import django_app
from .hybrid import hybrid_of
from .log import RequestLog
from .options import add_arguments, configure
from .workers import replace_process

if TYPE_CHECKING:
    _Command = DjangoCommand
else:
    _Command = object  # mixed in: which `runserver` is below is known when the apps are

_DEVELOPMENT = (
    "WARNING: DEBUG is on, so errors show the project's inside. With DEBUG = False this is the"
    " production command: no autoreload, no static files, no debug page."
)
_PRODUCTION = "DEBUG is off: no autoreload, no static files, no debug page."


def runserver_below(name: str = "") -> type[BaseCommand]:
    """The `runserver` that a project has without loopless, or below the app `name`.

    The first app that has one decides, but not one with a server of its own: there can be only
    one of those.
    """
    names = [config.name for config in apps.get_app_configs()]
    for app in names[names.index(name) + 1 :] if name in names else names:
        module = f"{app}.management.commands.runserver"
        if app.startswith("loopless.") or not _exists(module):
            continue
        command: type[BaseCommand] = importlib.import_module(module).Command
        if getattr(command, "inner_run", None) is DjangoCommand.inner_run:
            return command
    return DjangoCommand


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


class LooplessCommand(_Command):
    """The part of a command that serves with loopless, over some `runserver`."""

    help = "Serves this project with loopless: on threads, with autoreload while DEBUG is on."

    def add_arguments(self, parser: CommandParser) -> None:
        """The options of `runserver`, and those of loopless."""
        super().add_arguments(parser)
        if apps.is_installed("whitenoise.runserver_nostatic"):
            parser.set_defaults(use_static_handler=False)
        add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Check what was typed, then serve, with or without autoreload."""
        del args
        self._line = autoreload.Line()
        self._line.reached()
        if not settings.DEBUG and not settings.ALLOWED_HOSTS:
            raise CommandError("You must set settings.ALLOWED_HOSTS if DEBUG is False.")
        try:
            config = self._configure(options)
        except ConfigError as error:
            raise CommandError(str(error), returncode=2) from None
        serve = partial(self._check_and_serve, config)
        if not options["use_reloader"] or not settings.DEBUG:
            serve(**options)
        elif autoreload.is_child():
            autoreload.run_child(serve, **options)
        else:
            sys.exit(autoreload.Parent().run())

    # ---- What was typed -------------------------------------------------------------------

    def _configure(self, options: dict[str, Any]) -> ServerConfig:
        typed: dict[str, Any] = {}
        if not options["use_threading"]:
            if options["threads"] not in (None, 1):
                raise CommandError("--nothreading means one thread: give it, or --threads")
            typed["threads"] = 1
        if options["addrport"] or options["use_ipv6"]:
            if options["bind"]:
                raise CommandError("an address was given twice: as an argument, and by --bind")
            typed["bind"] = self._address(options["addrport"] or "", ipv6=options["use_ipv6"])
        defaults = {"bind": self._address("", ipv6=False)}
        config = configure(options, defaults=defaults, typed=typed)
        check_files(config)
        if config.processes.needs_supervisor and options["use_reloader"] and settings.DEBUG:
            raise ConfigError("workers: autoreload is for a single process; add --noreload")
        return config

    def _address(self, typed: str, *, ipv6: bool) -> str:
        """`typed` as `bind` has it: runserver's spellings mean what they mean there."""
        if typed.startswith(("unix:", "fd:")):
            return typed
        host, _, port = typed.rpartition(":")
        if port and not port.isdecimal():
            raise CommandError(f'"{typed}" is not a valid port number or address:port pair.')
        if not host:
            host = f"[{self.default_addr_ipv6}]" if ipv6 else self.default_addr
        elif ipv6 and not host.startswith("["):
            host = f"[{_ipv6_of(host)}]"
        return f"{host}:{port or self.default_port}"

    # ---- Serving --------------------------------------------------------------------------

    def _check_and_serve(self, config: ServerConfig, **options: Any) -> None:
        django_autoreload.raise_last_exception()
        if not options["skip_checks"]:
            self.stdout.write("Performing system checks...\n\n")
            kwargs: Any = BaseCommand.get_check_kwargs(self, options)
            self.check(**kwargs, display_num_errors=True)
        self.check_migrations()
        for connection in connections.all(initialized_only=True):
            connection.close()
        handler = self.get_handler(**options)
        if config.processes.needs_supervisor:
            static_files = isinstance(handler, StaticFilesHandler)
            notes = [_DEVELOPMENT if settings.DEBUG else _PRODUCTION]
            self._serve_with_workers(config, static_files, notes)
        try:
            app = hybrid_of(django_app(handler))
        except ImproperlyConfigured as error:
            self._give_up(str(error))
        configure_logging(config.log.level)
        raise_descriptor_limit()
        try:
            addresses = config.bind.addresses
            server = Server(
                app,
                config,
                sockets=self._line.sockets(addresses, partial(open_sockets, config)),
                lifecycle_collector=_request_log(config),
            )
            server.start()
        except (ConfigError, StartupError, OSError) as error:
            self._give_up(str(error))
        self._serve(server, **options)

    def _serve_with_workers(
        self, config: ServerConfig, static_files: bool, notes: list[str]
    ) -> NoReturn:
        self.stdout.flush()
        try:
            replace_process(config, static_files=static_files, notes=notes)
        except ConfigError as error:
            self._give_up(str(error))

    def _give_up(self, message: str) -> NoReturn:
        if threading.current_thread() is threading.main_thread():
            raise CommandError(message, returncode=2)
        # as runserver: nothing else ends the process from a thread beside the reloader
        self.stderr.write(f"Error: {message}")
        os._exit(1)

    def _serve(self, server: Server, **options: Any) -> None:
        """Until Ctrl-C, SIGTERM, or the reloader ends the process."""
        try:
            self._announce(server)
            server.serve_forever()
        except KeyboardInterrupt:
            server.stop()
        if options.get("shutdown_message"):
            self.stdout.write(options["shutdown_message"])

    def _announce(self, server: Server) -> None:
        threads = server.config.threads()
        stop = "CTRL-BREAK" if sys.platform == "win32" else "CONTROL-C"
        kind = "development server" if settings.DEBUG else "server"
        lines = [
            time.strftime("%B %d, %Y - %X"),
            f"Django version {self.get_version()}, using settings {settings.SETTINGS_MODULE!r}",
            *(f"Starting {kind} at {_with_slash(url)}" for url in server.urls),
            *made_up_certificate(server),
            f"loopless {__version__}, {threads} thread{'s' if threads > 1 else ''}, {gil_state()}",
            *gil_advice(),
            *_beside(server),
            f"Quit the server with {stop}.",
        ]
        self.stdout.write("\n".join(lines))
        if not settings.DEBUG:
            self.stdout.write(_PRODUCTION)
        elif os.environ.get("DJANGO_RUNSERVER_HIDE_WARNING") != "true":
            self.stdout.write(self.style.WARNING(_DEVELOPMENT))
        # into a pipe too, where somebody may be waiting for it
        self.stdout.flush()


def _request_log(config: ServerConfig) -> RequestLog | None:
    """A developer sees each request, as with runserver, unless a log was asked for there."""
    return RequestLog() if settings.DEBUG and config.log.access_log != "-" else None


def _beside(server: Server) -> list[str]:
    if server.asgi_app is None:
        return []
    return [f"{settings.ASGI_APPLICATION} has the WebSockets and asynchronous views, on a loop"]


def _with_slash(url: str) -> str:
    return url if url.startswith("unix:") else f"{url}/"


def _ipv6_of(host: str) -> str:
    """The first IPv6 address of `host`."""
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET6, socket.SOCK_STREAM)
    except OSError:
        raise CommandError(f'"{host}" is not a valid IPv6 address.') from None
    return str(found[0][4][0])
