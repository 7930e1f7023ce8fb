"""`runserver`, with threadwell in it: what the commands of both apps are made of."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import (
    BaseCommand,
    CommandError,
    CommandParser,
    SystemCheckError,
)
from django.core.management.color import no_style
from django.core.management.commands.runserver import Command as DjangoCommand
from django.db import connections
from django.utils import autoreload as django_autoreload
from django.utils.log import ServerFormatter

from threadwell.banner import gil_advice, gil_state, made_up_certificate, places
from threadwell.process_setup import (
    check_files,
    configure_logging,
    exit_on_next_signal,
    force_exit_by,
    raise_descriptor_limit,
)
from threadwell.reload import GRACE
from threadwell.version import __version__
from threadwell.worker import ConfigError, Server, ServerConfig, StartupError
from threadwell.worker.system.pid_file import pid_file

from . import autoreload
from .handler import django_app
from .hybrid import hybrid_of
from .log import RequestLog
from .options import add_arguments, configure, from_settings
from .workers import replace_process

if TYPE_CHECKING:
    _Command = DjangoCommand
else:
    _Command = object  # mixed in: which `runserver` is below is known when the apps are

# As argparse: the code for what was typed wrongly.
_USAGE = 2
# Seconds at most for the reloader's first look at the files: a busy machine may need some.
_FIRST_LOOK = 20.0
_OWN_APP = "threadwell.adapters.django.runserver"

_DEVELOPMENT = (
    "WARNING: DEBUG is on, so errors show the project's inside. With DEBUG = False this is the"
    " production command: no autoreload, no static files, no debug page."
)
_PRODUCTION = "DEBUG is off: no autoreload, no static files, no debug page."
_INSECURE = "DEBUG is off: no autoreload, no debug page; but static files, by --insecure."


def runserver_commands(below: str = "") -> Iterator[tuple[str, type[BaseCommand]]]:
    """The apps that have a `runserver`, and it: all of them, or those below the app `below`."""
    names = [config.name for config in apps.get_app_configs()]
    for app in names[names.index(below) + 1 :] if below in names else names:
        module = f"{app}.management.commands.runserver"
        if app != _OWN_APP and _exists(module):
            yield app, importlib.import_module(module).Command


def has_own_server(command: type[BaseCommand]) -> bool:
    """Whether a `runserver` serves with something else than Django's server, and than this."""
    return getattr(command, "inner_run", None) is not DjangoCommand.inner_run


def runserver_below(name: str = "") -> type[BaseCommand]:
    """The `runserver` that a project has without threadwell, or below the app `name`.

    The first app that has one decides, but not one with a server of its own: there can be only
    one of those; nor one that wraps threadwell's `runserver`, for what is below is wrapped again.
    """
    for _, command in runserver_commands(name):
        if not has_own_server(command) and not issubclass(command, ThreadwellCommand):
            return command
    return DjangoCommand


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


class ThreadwellCommand(_Command):
    """The part of a command that serves with threadwell, over some `runserver`."""

    help = "Serves this project with threadwell: on threads, with autoreload while DEBUG is on."

    def add_arguments(self, parser: CommandParser) -> None:
        """The options of `runserver`, and those of threadwell."""
        super().add_arguments(parser)
        if apps.is_installed("whitenoise.runserver_nostatic"):
            parser.set_defaults(use_static_handler=False)
        add_arguments(parser)

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Django's, whose complaints are one line here: there are many options to list."""
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        if getattr(self, "_called_from_command_line", False):
            parser.error = partial(_complain, parser)  # type: ignore[method-assign]
        return parser

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Django's; but without colours where `NO_COLOR` asks for none, which Django leaves."""
        if os.environ.get("NO_COLOR") and not options["force_color"]:
            options["no_color"] = True
        return super().execute(*args, **options)

    def handle(self, *args: Any, **options: Any) -> None:
        """Check what was typed, then serve, with or without autoreload."""
        del args
        self._server: Server | None = None
        if options["no_color"]:
            _uncolour_requests()
        if not settings.DEBUG and not settings.ALLOWED_HOSTS:
            raise CommandError("You must set settings.ALLOWED_HOSTS if DEBUG is False.")
        try:
            # What the setting says is for the system checks, and can be mended while this runs.
            check_files(self._configure(options, {}))
        except ConfigError as error:
            raise CommandError(str(error), returncode=_USAGE) from None
        if not options["use_reloader"] or not settings.DEBUG:
            try:
                self._check_and_serve(**options)
            except ConfigError as error:
                raise CommandError(str(error), returncode=_USAGE) from None
        elif autoreload.is_child():
            autoreload.run_child(self._serve_under_reloader, self._stop, **options)
        else:
            sys.exit(autoreload.Parent().run())

    # ---- What was typed -------------------------------------------------------------------

    def _configure(self, options: Mapping[str, Any], setting: Mapping[str, Any]) -> ServerConfig:
        typed: dict[str, Any] = {}
        if not options["use_threading"]:
            if options["threads"] not in (None, 1):
                raise ConfigError("--nothreading means one thread: give it, or --threads")
            typed["threads"] = 1
        if options["addrport"] or options["use_ipv6"]:
            if options["bind"]:
                raise ConfigError("an address was given twice: as an argument, and by --bind")
            typed["bind"] = self._address(options["addrport"] or "", ipv6=options["use_ipv6"])
        defaults: dict[str, Any] = {"bind": self._address("", ipv6=False)}
        reloads = options["use_reloader"] and settings.DEBUG
        if reloads:
            defaults["static_refresh"] = True
        if settings.DEBUG:
            defaults["graceful_timeout"] = GRACE  # no developer waits for an open stream
        config = configure(options, defaults={**defaults, **setting}, typed=typed)
        if reloads and (config.processes.needs_supervisor or config.processes.pid_file):
            option = config.processes.reason_for_supervisor or (
                "workers" if config.processes.needs_supervisor else "pid_file"
            )
            raise ConfigError(f"{option}: autoreload is for a single process; add --noreload")
        return config

    def _address(self, typed: str, *, ipv6: bool) -> str:
        """`typed` as `bind` has it: runserver's spellings mean what they mean there."""
        if typed.startswith(("unix:", "fd:")):
            return typed
        host, _, port = typed.rpartition(":")
        if port and not port.isdecimal():
            raise ConfigError(f'"{typed}" is not a valid port number or address:port pair.')
        if not host:
            host = f"[{self.default_addr_ipv6}]" if ipv6 else self.default_addr
        elif ipv6 and not host.startswith("["):
            host = f"[{_ipv6_of(host)}]"
        return f"{host}:{port or self.default_port}"

    # ---- Serving --------------------------------------------------------------------------

    def _serve_under_reloader(self, **options: Any) -> None:
        """In a thread beside the reloader. What an edit can mend leaves the process alone."""
        try:
            self._check_and_serve(**options)
        except SystemCheckError as error:
            self.stderr.write(str(error), lambda text: text)  # it has colours already
        except ConfigError as error:
            self.stderr.write(f"Error: {error}")
            if self._opening:
                # as runserver: nothing else ends the process from here
                self.stdout.flush()
                os._exit(_USAGE)

    def _check_and_serve(self, **options: Any) -> None:
        """Raises `ConfigError` for what the settings say, and for what cannot be listened on."""
        self._opening = False
        django_autoreload.raise_last_exception()
        if not options["skip_checks"]:
            self.stdout.write("Performing system checks...\n\n")
            kwargs: Any = BaseCommand.get_check_kwargs(self, options)
            self.check(**kwargs, display_num_errors=True)
        self.check_migrations()
        for connection in connections.all(initialized_only=True):
            connection.close()
        config = self._configure(options, from_settings())
        check_files(config)
        handler = self.get_handler(**options)
        static = isinstance(handler, StaticFilesHandler)
        if config.processes.needs_supervisor:
            self.stdout.flush()
            replace_process(config, static_files=static, notes=[_kind_of_service(static)])
        try:
            app = hybrid_of(django_app(handler))
        except ImproperlyConfigured as error:
            raise ConfigError(str(error)) from None
        configure_logging(config.log.level)
        raise_descriptor_limit()
        self._opening = True
        self._server = Server(
            app,
            config,
            sockets=autoreload.line().sockets(config),
            lifecycle_collector=_request_log(config),
        )
        with pid_file(config.processes.pid_file):
            try:
                self._server.start()
            except (OSError, StartupError) as error:
                raise ConfigError(f"the server cannot start: {error}") from None
            self._serve(self._server, with_static=static, **options)

    def _stop(self) -> None:
        if self._server is not None:
            self._server.stop(GRACE)

    def _serve(self, server: Server, *, with_static: bool, **options: Any) -> None:
        """Until Ctrl-C, SIGTERM, or the reloader ends the process."""
        if autoreload.is_child() and settings.DEBUG and options["use_reloader"]:
            # who reads that it serves may edit at once
            autoreload.line().looked.wait(_FIRST_LOOK)
        try:
            # who reads that it serves may end it at once
            server.serve_forever(partial(self._announce, server, with_static=with_static))
            self._near_the_end()
        except KeyboardInterrupt:
            server.stop()
            self._near_the_end()
        if options.get("shutdown_message"):
            self.stdout.write(options["shutdown_message"])
        force_exit_by(server.deadline)

    def _near_the_end(self) -> None:
        """Where the process ends with the command, a signal is no error of what it does last."""
        main = threading.current_thread() is threading.main_thread()  # else it is a reloader's
        if main and getattr(self, "_called_from_command_line", False):
            exit_on_next_signal()

    def _announce(self, server: Server, *, with_static: bool) -> None:
        threads = server.config.thread_count()
        stop = "CTRL-BREAK" if sys.platform == "win32" else "CONTROL-C"
        kind = "development server" if settings.DEBUG else "server"
        lines = [
            time.strftime("%B %d, %Y - %X"),
            f"Django version {self.get_version()}, using settings {settings.SETTINGS_MODULE!r}",
            *(f"Starting {kind} at {place}" for place in places(server, path="/")),
            *made_up_certificate(server),
            f"threadwell {__version__}, {threads} thread{'s' if threads > 1 else ''},"
            f" {gil_state()}",
            *gil_advice(),
            *_beside(server),
            f"Quit the server with {stop}.",
        ]
        self.stdout.write("\n".join(lines))
        if not settings.DEBUG:
            self.stdout.write(_kind_of_service(with_static))
        elif os.environ.get("DJANGO_RUNSERVER_HIDE_WARNING") != "true":
            self.stdout.write(self.style.WARNING(_kind_of_service(with_static)))
        # into a pipe too, where somebody may be waiting for it
        self.stdout.flush()


def _kind_of_service(static: bool) -> str:
    """What is said of `DEBUG`, and what follows from it."""
    if settings.DEBUG:
        return _DEVELOPMENT
    return _INSECURE if static else _PRODUCTION


def _request_log(config: ServerConfig) -> RequestLog | None:
    """A developer sees each request, as with runserver, unless a log was asked for there."""
    return RequestLog() if settings.DEBUG and config.log.access_log != "-" else None


def _beside(server: Server) -> list[str]:
    if server.asgi_app is None:
        return []
    return [f"{settings.ASGI_APPLICATION} has the WebSockets and asynchronous views, on a loop"]


def _ipv6_of(host: str) -> str:
    """The first IPv6 address of `host`."""
    if host == "localhost":  # whatever this machine's files say (RFC 6761, 6.3)
        return "::1"
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET6, socket.SOCK_STREAM)
    except OSError:
        raise ConfigError(f'"{host}" is not a valid IPv6 address.') from None
    return str(found[0][4][0])


def _uncolour_requests() -> None:
    """Take the colours from Django's own request lines, whose handlers were set up before."""
    for handler in logging.getLogger("django.server").handlers:
        if isinstance(handler.formatter, ServerFormatter):
            handler.formatter.style = no_style()


def _complain(parser: CommandParser, message: str) -> NoReturn:
    """One line for what cannot be understood, with the option that may have been meant."""
    unknown = re.search(r"(--[\w-]+)", message) if "unrecognized" in message else None
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        close = difflib.get_close_matches(unknown[1], flags, n=1)
        message += f"; did you mean {close[0]}?" if close else f"; see {parser.prog} --help"
    parser.exit(_USAGE, f"{parser.prog}: {message}\n")
    raise AssertionError("not reached")
