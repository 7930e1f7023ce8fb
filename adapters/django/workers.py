"""`runserver_fast --workers N`: replaces the process of the command by a supervisor.

A supervisor must not import what it reloads, but a management command has imported the whole
project. So the command checks the project, and its process then executes this module.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from threadwell.multi_process import Loaded, StartFailed, run_workers
from threadwell.process_setup import USAGE_ERROR, open_missing_streams
from threadwell.worker import ConfigError, ServerConfig

from .options import values_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_VARIABLE = "THREADWELL_DJANGO_WORKERS"


def replace_process(config: ServerConfig, *, static_files: bool, notes: Sequence[str]) -> NoReturn:
    """Turn this process into the supervisor of the workers that `config` asks for.

    `static_files` says whether static files are served as `runserver` does; `notes` are lines of
    the start message. Raises `ConfigError` on a system without `fork`.
    """
    if not hasattr(os, "fork"):
        raise ConfigError("workers: this system cannot fork, so there can only be one process")
    facts = {
        "options": values_of(config),
        "path": sys.path,
        "static_files": static_files,
        "notes": list(notes),
    }
    flags = [f"-W{filter_}" for filter_ in sys.warnoptions]
    flags += [f"-X{key}" if value is True else f"-X{key}={value}" for key, value in _x_options()]
    os.environ[_VARIABLE] = json.dumps(facts)
    os.execv(sys.executable, [sys.executable, *flags, "-m", __name__])


def _x_options() -> list[tuple[str, Any]]:
    return list(getattr(sys, "_xoptions", {}).items())


def _load(static_files: bool) -> Loaded:
    """Import the project, in a worker process."""
    import django
    from django.conf import settings
    from django.core.servers.basehttp import get_internal_wsgi_application

    from .handler import django_app
    from .hybrid import hybrid_of

    django.setup()
    application = get_internal_wsgi_application()
    if static_files:
        from django.contrib.staticfiles.handlers import StaticFilesHandler

        application = StaticFilesHandler(application)
    name = settings.WSGI_APPLICATION or settings.SETTINGS_MODULE
    return Loaded(hybrid_of(django_app(application, multiprocess=True)), name, "django")


def main() -> int:
    """Serve as `replace_process` has written to the environment; return the exit code."""
    open_missing_streams()
    facts = json.loads(os.environ.pop(_VARIABLE))
    sys.path[:] = facts["path"]
    config = ServerConfig.from_options(**facts["options"])
    try:
        return run_workers(lambda: _load(facts["static_files"]), config, facts["notes"])
    except ConfigError as error:
        message = str(error)
    except StartFailed as error:
        sys.stderr.write(error.trace)
        message = str(error)
    sys.stderr.write(f"Error: {message}\n")
    return USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
