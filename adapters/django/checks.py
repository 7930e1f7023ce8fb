"""System checks: what Django says of our settings before anything is served."""

from __future__ import annotations

from typing import Any

from django.core import checks
from django.core.checks import CheckMessage

from threadwell.worker import ConfigError

from .options import from_settings


def check_setting(**_: Any) -> list[CheckMessage]:
    """`THREADWELL` has only options that exist, with values that can be used."""
    try:
        from_settings()
    except ConfigError as error:
        return [checks.Error(str(error), id="threadwell.E001")]
    return []


_OURS = "threadwell.adapters.django.runserver"


def check_order(**_: Any) -> list[CheckMessage]:
    """`runserver` is the one of the first app that has one: that must be ours, or wrap ours."""
    from .command import ThreadwellCommand, has_own_server, runserver_commands

    below = dict(runserver_commands(_OURS))
    found: list[CheckMessage] = [
        checks.Error(
            f"{_OURS!r} stands below {name!r} in INSTALLED_APPS, so that {name!r} has `runserver`.",
            hint=f"Put {_OURS!r} above {name!r}.",
            id="threadwell.E002",
        )
        for name, command in runserver_commands()
        if name not in below and not issubclass(command, ThreadwellCommand)
    ]
    found += [
        checks.Warning(
            f"Both {_OURS!r} and {name!r} replace `runserver`; threadwell's is used.",
            hint=f"Remove one of the two, or use `runserver_fast` beside {name!r}.",
            id="threadwell.W001",
        )
        for name, command in below.items()
        if has_own_server(command)
    ]
    return found
