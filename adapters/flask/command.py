"""`flask serve`: a command of Flask's command line, with all options of `flask run`.

In debug mode it is for development: it reloads, shows the debugger of Werkzeug, and if the
application cannot be imported, it serves the traceback as a page. Without debug mode it is for
production and does none of that.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from flask.cli import ScriptInfo, pass_script_info
from flask.helpers import get_debug_flag
from werkzeug.debug import DebuggedApplication

from threadwell.adapters import WSGIApp, as_sync_app
from threadwell.app_loader import AppError, app_folder, importing
from threadwell.command_options import (
    GroupedCommand,
    GroupedOption,
    from_table,
    spelled_as_flag,
)
from threadwell.error_page import ErrorPage, SelfReloading, is_loopback, may_see_source
from threadwell.multi_process import Loaded, StartFailed, run_workers
from threadwell.process_setup import DEVELOPMENT_LIMITS, USAGE_ERROR, open_missing_streams
from threadwell.reload import Inherited, WatchedFiles
from threadwell.single_process import checked_config, run_reloader, run_server
from threadwell.worker import OPTIONS, ConfigError, format_address

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Sequence

    from threadwell.worker import Request, Response, SyncApp

# Options of the table that are replaced by options of Flask.
_REPLACED_OPTIONS = {"bind", "cert"}
# Variables that show that a request came through a proxy.
_FORWARDED = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_X_REAL_IP")
# In debug mode, log each request as `flask run` does, unless the user has chosen a log.
_DEBUG_LOG = {"access_log": "-", "log_format": '%h "%r" %>s %b'}

_HELP = """Serve the application on threads, without an event loop.

With --debug this is for development: it reloads when a file changes, and errors are shown in the
interactive debugger. Without, it is for production.
"""


# What most users type: `--help` shows these, `--help-all` every option.
_COMMON = (
    "host", "port", "bind", "cert", "key", "debug", "reload", "debugger", "threads", "workers",
    "trusted_proxies", "static", "access_log",
)  # fmt: skip


class _UsageError(click.ClickException):
    """An error that is printed as one line and ends the process with code 2."""

    exit_code = USAGE_ERROR


# ---- Options ------------------------------------------------------------------------------


def _set_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    assert param.name is not None
    if ctx.get_parameter_source(param.name) is not ParameterSource.DEFAULT:
        # Read by the application and its factory, and by the child of a reloader.
        os.environ["FLASK_DEBUG"] = "1" if value else "0"


def _paths(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str]:
    del ctx, param
    return [path for path in (value or "").split(os.pathsep) if path]


def _option(*names: str, group: str, **kwargs: Any) -> click.Option:
    return GroupedOption(names, group=group, **kwargs)


def _bind_options() -> list[click.Parameter]:
    return [
        _option(
            "--host", "-h", group="bind", help="The interface to bind to.  [default: 127.0.0.1]"
        ),
        _option(
            "--port",
            "-p",
            group="bind",
            type=click.IntRange(0, 65535),
            help="The port to bind to.  [default: 5000]",
        ),
        _option(
            "--bind",
            group="bind",
            multiple=True,
            metavar="TEXT",
            help="Where to listen, instead of --host and --port: PORT, HOST:PORT, [IPV6]:PORT,"
            " unix:/PATH or fd://N. May be repeated.",
        ),
        _option(
            "--cert",
            group="tls",
            metavar="PATH|adhoc",
            help="A certificate file, the import name of an SSLContext, or adhoc, which generates a"
            " certificate with trustme, for development. Switches TLS on.",
        ),
        _option("--key", group="tls", metavar="PATH", help="The key of --cert."),
        _option(
            "--with-threads/--without-threads",
            group="threads",
            default=None,
            help="--without-threads is --threads 1.",
        ),
    ]


def _development_options() -> list[click.Parameter]:
    several = f"Several are separated by {os.pathsep!r}."
    return [
        _option(
            "--debug/--no-debug",
            group="reload",
            callback=_set_debug,
            is_eager=True,
            expose_value=False,
            help="Set debug mode.",
        ),
        _option(
            "--reload/--no-reload",
            group="reload",
            default=None,
            help="Restart when a file changes.  [default: in debug mode]",
        ),
        _option(
            "--debugger/--no-debugger",
            group="reload",
            default=None,
            help="Show errors in Werkzeug's debugger to clients on this machine; in debug mode"
            " only.  [default: in debug mode]",
        ),
        _option(
            "--extra-files",
            group="reload",
            callback=_paths,
            metavar="PATHS",
            help=f"Files that restart the server when they change, beside the modules. {several}",
        ),
        _option(
            "--exclude-patterns",
            group="reload",
            callback=_paths,
            metavar="PATTERNS",
            help=f"Files that match one of these do not restart the server. {several}",
        ),
    ]


def _options() -> list[click.Parameter]:
    table = [from_table(option) for option in OPTIONS if option.name not in _REPLACED_OPTIONS]
    return [*_bind_options(), *_development_options(), *table]


# ---- The command --------------------------------------------------------------------------


class _Serve(GroupedCommand):
    """The command. It prints a `ConfigError` as one line."""

    default_group = "reload"

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        open_missing_streams()
        return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            code = super().invoke(ctx)
        except StartFailed as error:
            sys.stderr.write(error.trace)
            raise _UsageError(" ".join(spelled_as_flag(str(error)).split())) from None
        except ConfigError as error:
            raise _UsageError(" ".join(spelled_as_flag(str(error)).split())) from None
        ctx.exit(code)


@pass_script_info
def _serve(
    info: ScriptInfo,
    /,
    host: str | None,
    port: int | None,
    bind: Sequence[str],
    cert: str | None,
    key: str | None,
    reload: bool | None,
    debugger: bool | None,
    with_threads: bool | None,
    extra_files: list[str],
    exclude_patterns: list[str],
    **options: Any,
) -> int:
    debug = get_debug_flag()
    reload = debug if reload is None else reload
    given = _given(options)
    _use_threads(with_threads, given)
    given["bind"] = _bind(host, port, bind)
    ssl_context = _use_certificate(cert, key, given)
    if debug and not {"access_log", "log_format"} & given.keys():
        given |= _DEBUG_LOG
    if debug or reload:
        given = DEVELOPMENT_LIMITS | given
    if reload:
        given.setdefault("static_refresh", True)
    config = checked_config(given)
    debugger = _uses_debugger(debugger, debug=debug, trusting=bool(config.proxies.trusted))
    if config.processes.needs_supervisor and (reload or debugger):
        option = config.processes.reason_for_supervisor
        raise ConfigError(
            f"{option}: the reloader and the debugger are for a single process; add --no-reload"
            f" and --no-debugger, or leave out --{option.replace('_', '-')}"
        )
    inherited = None
    if reload:
        inherited = Inherited.take()
        if inherited is None:
            watched = _watched(info, extra_files, exclude_patterns)
            return run_reloader(config, watched, ssl_context=ssl_context)
        os.environ["WERKZEUG_RUN_MAIN"] = "true"  # Some applications look for it.
    elif extra_files or exclude_patterns:
        raise ConfigError("extra-files, exclude-patterns: they are for --reload; add it")
    if config.processes.needs_supervisor:
        return run_workers(partial(_load_in_worker, info), config, (), ssl_context)
    with inherited.reporting_errors() if inherited is not None else nullcontext():
        app, name = _load(info, in_reloader=inherited is not None)
        notes = ["Debug mode is on: do not use it in production"] if debug else []
        sync_app = as_sync_app(app)
        if debugger:
            broken = isinstance(app, Broken)
            debugged = Debugged(app.raise_error if broken else app)
            notes.append(debugged.note())
            sync_app = app.shown_by(debugged) if broken else WSGIApp(debugged)
        return run_server(sync_app, config, name, "flask", inherited, notes, ssl_context)


def _uses_debugger(wanted: bool | None, *, debug: bool, trusting: bool) -> bool:
    """Whether Werkzeug's debugger is on. Raises `ConfigError` where it must not be."""
    if wanted and not debug:
        raise ConfigError("debugger: it lets clients run code, so it needs debug mode; add --debug")
    if wanted and trusting:
        raise ConfigError(
            "debugger: it is for clients on this machine, and behind --trusted-proxies any"
            " client could pose as one; leave one of them out"
        )
    return (debug and not trusting) if wanted is None else wanted


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options of the table that have a value from any source but their default."""
    ctx = click.get_current_context()
    return {
        name: value
        for name, value in options.items()
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    }


def _use_threads(with_threads: bool | None, options: dict[str, Any]) -> None:
    if with_threads is not False:
        return
    if options.get("threads", 1) != 1:
        raise ConfigError("without-threads: this is --threads 1; leave one of them out")
    options["threads"] = 1


def _bind(host: str | None, port: int | None, bind: Sequence[str]) -> Sequence[str]:
    if bind:
        if host is not None or port is not None:
            raise ConfigError("bind: it replaces --host and --port; leave them out")
        return bind
    if host and host.startswith(("unix:", "fd:")):  # As `flask run` accepts it.
        return [host]
    host = "127.0.0.1" if host is None else host
    return [format_address(host, 5000 if port is None else port)]


def _use_certificate(
    cert: str | None, key: str | None, options: dict[str, Any]
) -> ssl.SSLContext | None:
    """Add to `options` what `--cert` and `--key` mean, or return the SSLContext that they name.

    Raises `ConfigError`.
    """
    if cert is None:
        if key is not None:
            raise ConfigError("key: it is for --cert, which was not given; add it")
        return None
    if "certfile" in options or "keyfile" in options:
        raise ConfigError("cert: --certfile and --keyfile say it already; leave one of them out")
    context = None if os.path.exists(cert) else _imported_context(cert)
    if key is not None and (cert == "adhoc" or context is not None):
        raise ConfigError("key: it is for a certificate file, and --cert is none; leave it out")
    if context is not None:
        return context
    if cert == "adhoc":
        options["cert"] = cert
    else:
        options["certfile"] = cert
    if key is not None:
        options["keyfile"] = key
    return None


def _imported_context(name: str) -> ssl.SSLContext | None:
    import ssl

    from werkzeug.utils import import_string

    found = import_string(name, silent=True)
    return found if isinstance(found, ssl.SSLContext) else None


def _watched(info: ScriptInfo, extra_files: list[str], exclude: list[str]) -> WatchedFiles:
    spec = info.app_import_path
    return WatchedFiles([".", *app_folder(spec)], exclude=exclude, extra_files=extra_files)


def _load(info: ScriptInfo, *, in_reloader: bool) -> tuple[Any, str]:
    """The application and its name.

    If it cannot be imported, the result in a reloader is a `Broken`.
    """
    try:
        with importing():
            app = info.load_app()
    except Exception as error:
        if not in_reloader:
            if isinstance(error, (click.ClickException, ConfigError)):
                raise
            traceback.print_exc()
            raise _UsageError(_import_failure(error)) from None
        # The traceback is printed now, and served as a page until a change fixes the error.
        traceback.print_exc()
        return Broken(error), info.app_import_path or "an application that cannot be imported"
    return app, info.app_import_path or app.name


def _load_in_worker(info: ScriptInfo) -> Loaded:
    """The application, in a worker process. Raises `AppError`, which the supervisor prints once."""
    try:
        with importing():
            app = info.load_app()
    except click.ClickException as error:
        raise AppError(error.format_message()) from None
    except ConfigError:
        raise
    except Exception as error:
        raise AppError(_import_failure(error), traceback.format_exc()) from None
    sync_app = as_sync_app(app, multiprocess=True)
    return Loaded(sync_app, info.app_import_path or app.name, "flask")


def _import_failure(error: Exception) -> str:
    cause = " ".join(f"{type(error).__name__}: {error}".removesuffix(": ").split())
    return f"the application cannot be imported: {cause}"


class Broken:
    """A `SyncApp` instead of an application that cannot be imported: it shows the `error`."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        # Each `raise` would make the traceback longer.
        self._trace = error.__traceback__
        self._page = ErrorPage("".join(traceback.format_exception(error)))

    def __call__(self, request: Request) -> Response:
        return self._page(request)

    def raise_error(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """A WSGI application that raises the error at each request."""
        del environ, start_response
        raise self._error.with_traceback(self._trace) from None

    def shown_by(self, debugged: Debugged) -> SyncApp:
        """The same, but clients that may see the source get the debugger around `raise_error`."""
        debugger = WSGIApp(SelfReloading(debugged))

        def app(request: Request) -> Response:
            return debugger(request) if may_see_source(request) else self._page(request)

        return app


# ---- The debugger -------------------------------------------------------------------------


class Debugged:
    """A WSGI application: `app` in the debugger of Werkzeug, for clients on this machine only.

    Requests of other clients, and those that come through a proxy, go to `app` directly.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._debugged = DebuggedApplication(app, evalex=True, pin_logging=False)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        app = self._debugged if _is_local(environ) else self._app
        result: Iterable[bytes] = app(environ, start_response)
        return result

    def note(self) -> str:
        """A line of the start message that tells the PIN of the debugger."""
        pin = self._debugged.pin
        return f"The debugger's PIN is {pin}" if pin else "The debugger asks for no PIN"


def _is_local(environ: dict[str, Any]) -> bool:
    if any(name in environ for name in _FORWARDED):
        return False
    return is_loopback(environ["REMOTE_ADDR"])


serve = _Serve(
    name="serve",
    params=_options(),
    callback=_serve,
    help=_HELP,
    common=_COMMON,
    short_help="Serve on threads, for production or, with --debug, development.",
    context_settings={"max_content_width": 100},
)
