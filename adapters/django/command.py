"""`runserver` on threadwell: the base of the commands of both apps."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

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

from threadwell.banner import (
    adhoc_certificate_notes,
    gil_advice,
    gil_state,
    listening_urls,
    websocket_notes,
)
from threadwell.process_setup import (
    DEVELOPMENT_LIMITS,
    USAGE_ERROR,
    check_config,
    configure_logging,
    end_output,
    exit_on_next_signal,
    force_exit_by,
    open_missing_streams,
    pid_file,
    raise_descriptor_limit,
    say,
)
from threadwell.reload import GRACE
from threadwell.version import __version__
from threadwell.worker import ConfigError, Server, ServerConfig, StartupError, did_you_mean

from . import autoreload
from .handler import django_app
from .hybrid import hybrid_of
from .log import RequestLog
from .options import add_arguments, configure, from_settings
from .reload_parent import Parent
from .workers import replace_process

if TYPE_CHECKING:
    _Command = DjangoCommand
else:
    # A mixin: the `runserver` below it is known only when the apps are loaded.
    _Command = object

# The longest time in seconds that the first scan of the reloader may take on a busy machine.
_FIRST_SCAN = 20.0
#: The app that replaces `runserver`.
RUNSERVER_APP = "threadwell.adapters.django.runserver"

_DEVELOPMENT = (
    "WARNING: DEBUG is on: error pages expose project internals. With DEBUG = False this is the"
    " production command: no autoreload, no static files, no debug page."
)
_PRODUCTION = "DEBUG is off: no autoreload, no static files, no debug page."
_INSECURE = "DEBUG is off: no autoreload, no debug page; but static files, by --insecure."


def runserver_commands(below: str = "") -> Iterator[tuple[str, type[BaseCommand]]]:
    """Every app with a `runserver`, and its command; with `below`, only apps below that one.

    The app of threadwell is left out.
    """
    names = [config.name for config in apps.get_app_configs()]
    for app in names[names.index(below) + 1 :] if below in names else names:
        module = f"{app}.management.commands.runserver"
        if app != RUNSERVER_APP and _exists(module):
            yield app, importlib.import_module(module).Command


def has_own_server(command: type[BaseCommand]) -> bool:
    """Whether a `runserver` has its own server, instead of that of Django or this one."""
    return getattr(command, "inner_run", None) is not DjangoCommand.inner_run


def runserver_below(name: str = "") -> type[BaseCommand]:
    """The `runserver` that the command of threadwell extends: the first one below the app `name`.

    It skips commands with a server of their own, which cannot be combined with this one, and
    commands that derive from this one.
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
    """A mixin for a `runserver` command that serves with threadwell."""

    help = "Serves this project with threadwell: on threads, with autoreload while DEBUG is on."

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        open_missing_streams()  # The streams of the command are made of them.
        super().__init__(*args, **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options of `runserver` and those of threadwell."""
        super().add_arguments(parser)
        if apps.apps_ready and apps.is_installed("whitenoise.runserver_nostatic"):
            parser.set_defaults(use_static_handler=False)
        add_arguments(parser)

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """The parser of Django, whose errors are one line: there are too many options to list."""
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.usage = "%(prog)s [options] [addrport]"  # of all options it would be a page
        if getattr(self, "_called_from_command_line", False):
            parser.error = partial(_exit_with_usage_error, parser)  # type: ignore[method-assign]
        return parser

    def execute(self, *args: Any, **options: Any) -> str | None:
        """As Django, and without colours if `NO_COLOR` is set, which Django ignores."""
        if os.environ.get("NO_COLOR") and not options["force_color"]:
            options["no_color"] = True
        return super().execute(*args, **options)

    def handle(self, *args: Any, **options: Any) -> None:
        """Check the command line, then serve, with or without autoreload."""
        del args
        self._server: Server | None = None
        if options["no_color"]:
            _remove_request_colours()
        if not settings.DEBUG and not settings.ALLOWED_HOSTS:
            raise CommandError("You must set settings.ALLOWED_HOSTS if DEBUG is False.")
        try:
            # Without the setting THREADWELL: a system check reports it, and an edit can fix it.
            check_config(self._configure(options, {}))
        except ConfigError as error:
            raise CommandError(str(error), returncode=USAGE_ERROR) from None
        if not options["use_reloader"] or not settings.DEBUG:
            try:
                self._check_and_serve(**options)
            except ConfigError as error:
                raise CommandError(str(error), returncode=USAGE_ERROR) from None
        elif autoreload.is_child():
            autoreload.run_child(self._serve_under_reloader, self._stop, **options)
        else:
            sys.exit(Parent(partial(self.config_of_broken, options)).run())

    # ---- The command line -----------------------------------------------------------------

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
            defaults |= DEVELOPMENT_LIMITS
            defaults["graceful_timeout"] = GRACE  # A developer does not wait for open streams.
        config = configure(options, defaults={**defaults, **setting}, typed=typed)
        if reloads and (config.processes.needs_supervisor or config.processes.pid_file):
            option = config.processes.reason_for_supervisor or "pid_file"
            raise ConfigError(f"{option}: autoreload is for a single process; add --noreload")
        return config

    def config_of_broken(self, options: Mapping[str, Any]) -> ServerConfig:
        """The configuration while the project is broken; raises `ConfigError` for `options`.

        The setting THREADWELL may be what is broken. Then it is left out.
        """
        with contextlib.suppress(ConfigError):
            return self._configure(options, from_settings())
        return self._configure(options, {})

    def _address(self, typed: str, *, ipv6: bool) -> str:
        """The value of `bind` for `typed`, an address as `runserver` accepts it."""
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
        """Serve in a thread beside the reloader. An error that an edit can fix only prints."""
        try:
            self._check_and_serve(**options)
        except SystemCheckError as error:
            self.stderr.write(str(error), lambda text: text)  # It has colours already.
            autoreload.parent_link().report_error(str(error))
        except ConfigError as error:
            self.stderr.write(f"Error: {error}")
            if self._opening:
                # As `runserver`: another thread cannot end the process in another way.
                self.stdout.flush()
                os._exit(USAGE_ERROR)
            autoreload.parent_link().report_error(f"Error: {error}")

    def _check_and_serve(self, **options: Any) -> None:
        """Raises `ConfigError` for the settings, and for an address that cannot be bound."""
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
        check_config(config)
        handler = self.get_handler(**options)
        static = isinstance(handler, StaticFilesHandler)
        if config.processes.needs_supervisor:
            self.stdout.flush()
            notes = [*_asgi_note(), _debug_note(static)]
            replace_process(config, static_files=static, notes=notes)
        try:
            app = hybrid_of(django_app(handler))
        except ImproperlyConfigured as error:
            raise ConfigError(str(error)) from None
        configure_logging(config.log)
        self.stdout.flush()  # From now on, nothing waits for the reader.
        raise_descriptor_limit()
        self._opening = True
        self._server = Server(
            app,
            config,
            sockets=autoreload.parent_link().sockets(config),
            lifecycle_collector=_request_log(config),
        )
        self._server.terminal = sys.stdout if sys.stdout.isatty() else None
        with pid_file(config.processes.pid_file):
            try:
                if threading.current_thread() is not threading.main_thread():
                    self._server.start()
                # In the main thread, it starts once signals are handled.
                self._serve(self._server, with_static=static, **options)
            except (OSError, StartupError) as error:
                raise ConfigError(f"the server cannot start: {error}") from None

    def _stop(self) -> None:
        if self._server is not None:
            self._server.stop(GRACE)

    def _serve(self, server: Server, *, with_static: bool, **options: Any) -> None:
        """Serve until Ctrl-C, SIGTERM, or the end of the process by the reloader."""
        if autoreload.is_child() and settings.DEBUG and options["use_reloader"]:
            # A user who reads the start message may edit a file at once.
            autoreload.parent_link().scanned.wait(_FIRST_SCAN)
        try:
            # `serve_forever` prints the message: a user who reads it may press Ctrl-C at once.
            server.serve_forever(partial(self._announce, server, with_static=with_static))
            self._shorten_exit_on_signal()
        except KeyboardInterrupt:
            server.stop()
            self._shorten_exit_on_signal()
        if options.get("shutdown_message"):
            self._say(options["shutdown_message"])
        force_exit_by(server.deadline)
        end_output()

    def _shorten_exit_on_signal(self) -> None:
        """Let a signal not raise any more, if the process ends after this command."""
        # In another thread, the reloader does this.
        main = threading.current_thread() is threading.main_thread()
        if main and getattr(self, "_called_from_command_line", False):
            exit_on_next_signal()

    def _announce(self, server: Server, *, with_static: bool) -> None:
        threads = server.config.thread_count()
        stop = "CTRL-BREAK" if sys.platform == "win32" else "CONTROL-C"
        kind = "development server" if settings.DEBUG else "server"
        lines = [
            time.strftime("%B %d, %Y - %X"),
            f"Django version {self.get_version()}, using settings {settings.SETTINGS_MODULE!r}",
            *(f"Starting {kind} at {url}" for url in listening_urls(server, path="/")),
            *adhoc_certificate_notes(server),
            f"threadwell {__version__}, {threads} thread{'s' if threads > 1 else ''},"
            f" {gil_state()}",
            *gil_advice(),
            *_asgi_note(),
            f"Quit the server with {stop}.",
        ]
        if not settings.DEBUG:
            lines.append(_debug_note(with_static))
        elif os.environ.get("DJANGO_RUNSERVER_HIDE_WARNING") != "true":
            lines.append(self.style.WARNING(_debug_note(with_static)))
        self._say("\n".join(lines))

    def _say(self, text: str) -> None:
        """Print `text` without waiting for a reader: it may never come back."""
        say(text, cast("TextIO", self.stdout))


class _CommandWithoutApps(ThreadwellCommand, DjangoCommand):
    """The command while the apps are not loaded, without the options of other apps."""


def config_without_apps(arguments: Sequence[str]) -> ServerConfig:
    """The configuration of the command with `arguments`, while the apps cannot be loaded.

    It ignores the options of other apps. Raises `ConfigError`.
    """
    command = _CommandWithoutApps()
    parser = command.create_parser("manage.py", "runserver_fast")
    try:
        options, _ = parser.parse_known_args(list(arguments))
    except CommandError as error:
        raise ConfigError(str(error)) from None
    return command.config_of_broken(vars(options))


def _debug_note(static: bool) -> str:
    """The line of the start message about `DEBUG`. `static` says if static files are served."""
    if settings.DEBUG:
        return _DEVELOPMENT
    return _INSECURE if static else _PRODUCTION


def _request_log(config: ServerConfig) -> RequestLog | None:
    """A log for the terminal of a developer, as `runserver` has it.

    None without DEBUG, and if the access log goes to the terminal.
    """
    return RequestLog() if settings.DEBUG and config.log.access_log != "-" else None


def _asgi_note() -> list[str]:
    """The line of the start message about the ASGI application, if the project has one."""
    path = getattr(settings, "ASGI_APPLICATION", None)
    if not path:
        return []
    return [f"{path} serves WebSockets and asynchronous views on an event loop", *websocket_notes()]


def _ipv6_of(host: str) -> str:
    """The first IPv6 address of `host`."""
    if host == "localhost":  # Whatever the hosts file says (RFC 6761, section 6.3).
        return "::1"
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET6, socket.SOCK_STREAM)
    except OSError:
        raise ConfigError(f'"{host}" is not a valid IPv6 address.') from None
    return str(found[0][4][0])


def _remove_request_colours() -> None:
    """Switch off the colours of the logger `django.server`, which is set up already."""
    for handler in logging.getLogger("django.server").handlers:
        if isinstance(handler.formatter, ServerFormatter):
            handler.formatter.style = no_style()


def _exit_with_usage_error(parser: CommandParser, message: str) -> NoReturn:
    """Print one line about a usage error, with the most similar option, and exit."""
    unknown = re.search(r"(--[\w-]+)", message) if "unrecognized" in message else None
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        message += did_you_mean(unknown[1], flags) or f"; see {parser.prog} --help"
    parser.exit(USAGE_ERROR, f"{parser.prog}: {message}\n")
    raise AssertionError("not reached")
