"""System checks of the setting `THREADWELL` and of the order of apps."""

from __future__ import annotations

from typing import Any

from django.core import checks
from django.core.checks import CheckMessage

from threadwell.worker import ConfigError

from .options import from_settings


def check_setting(**_: Any) -> list[CheckMessage]:
    """An error if the setting `THREADWELL` has unknown options or unusable values."""
    try:
        from_settings()
    except ConfigError as error:
        return [checks.Error(str(error), id="threadwell.E001")]
    return []


def check_order(**_: Any) -> list[CheckMessage]:
    """Messages about other apps that have a `runserver`.

    Django takes the command of the first app that has one. That must be the app of threadwell, or
    one whose command derives from it.
    """
    from .command import RUNSERVER_APP, ThreadwellCommand, has_own_server, runserver_commands

    below = dict(runserver_commands(RUNSERVER_APP))
    found: list[CheckMessage] = [
        checks.Error(
            f"{RUNSERVER_APP!r} stands below {name!r} in INSTALLED_APPS,"
            f" so that {name!r} has `runserver`.",
            hint=f"Put {RUNSERVER_APP!r} above {name!r}.",
            id="threadwell.E002",
        )
        for name, command in runserver_commands()
        if name not in below and not issubclass(command, ThreadwellCommand)
    ]
    found += [
        checks.Warning(
            f"Both {RUNSERVER_APP!r} and {name!r} replace `runserver`; threadwell's is used.",
            hint=f"Remove one of the two, or use `runserver_fast` beside {name!r}.",
            id="threadwell.W001",
        )
        for name, command in below.items()
        if has_own_server(command)
    ]
    return found
