"""Entry points for PasteDeploy: `use = egg:threadwell` in the `[server:main]` of an ini file.

    [server:main]
    use = egg:threadwell
    bind = 127.0.0.1:6543 [::1]:6543
    threads = 16
    limit_body = 20M

The keys are the names of options; `host` and `port` may stand in the place of `bind`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .adapters import as_app
from .multi_process import Loaded, StartFailed, run_workers
from .process_setup import USAGE_ERROR
from .single_process import checked_config, run_server
from .worker import OPTIONS, ConfigError, ServerConfig, app_kind, format_address

_MULTIPLE = {option.name for option in OPTIONS if option.multiple}


def server_factory(global_conf: Mapping[str, str], **settings: str) -> Callable[[Any], None]:
    """A function that serves the application it is called with (`paste.server_factory`).

    A setting that cannot be used ends the process with code 2 and one line on standard error.
    """
    file = global_conf.get("__file__", "")
    try:
        config = parse_settings(settings)
    except ConfigError as error:
        sys.stderr.write(f"threadwell: {file + ': ' if file else ''}{error}\n")
        raise SystemExit(USAGE_ERROR) from None
    name = Path(file).name or "an application"
    return lambda app: _serve(app, config, name)


def server_runner(app: Any, global_conf: Mapping[str, str], **settings: str) -> None:
    """Serve `app` until a signal stops it (`paste.server_runner`).

    Raises `ConfigError` for an address that cannot be bound. A setting that cannot be used ends the
    process as with `server_factory`.
    """
    server_factory(global_conf, **settings)(app)


def parse_settings(settings: Mapping[str, str]) -> ServerConfig:
    """The configuration that the texts of an ini file make. Raises `ConfigError`.

    Several values of one option stand on lines of their own, or on one line with blanks between.
    """
    options: dict[str, Any] = {}
    for key, text in settings.items():
        name = key.replace("-", "_")
        if name in _MULTIPLE:
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            options[name] = lines if len(lines) > 1 else text.split()
        else:
            options[name] = text.strip()
    host, port = options.pop("host", None), options.pop("port", None)
    if host is not None or port is not None:
        if "bind" in options:
            raise ConfigError("bind: it replaces host and port; leave them out")
        options["bind"] = format_address(host or "127.0.0.1", port or "8000")
    return checked_config(options)


def _serve(app: Any, config: ServerConfig, name: str) -> None:
    kind = app_kind(app)
    supervised = config.processes.needs_supervisor
    served = as_app(app, multiprocess=supervised)
    if not supervised:
        run_server(served, config, name, kind)
        return
    try:
        run_workers(lambda: Loaded(served, name, kind), config)
    except StartFailed as error:
        sys.stderr.write(error.trace)
        raise ConfigError(str(error)) from None
