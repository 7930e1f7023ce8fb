"""System checks: what Django says of our settings before anything is served."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core import checks
from django.core.checks import CheckMessage

from loopless.worker import ConfigError

from .options import from_settings


def check_setting(**_: Any) -> list[CheckMessage]:
    """`LOOPLESS` has only options that exist, with values that can be used."""
    try:
        from_settings()
    except ConfigError as error:
        return [checks.Error(str(error), id="loopless.E001")]
    return []


# Apps with a `runserver` of their own, which replaces the whole server.
_RIVALS = ("daphne", "channels")
_STATICFILES = "django.contrib.staticfiles"


def check_order(**_: Any) -> list[CheckMessage]:
    """`runserver` is the one of the first app that has one: that must be ours."""
    ours = "loopless.adapters.django.runserver"
    names = [config.name for config in apps.get_app_configs()]
    before = names[: names.index(ours)]
    found: list[CheckMessage] = [
        checks.Error(
            f"{ours!r} stands below {name!r} in INSTALLED_APPS, so that {name!r} has `runserver`.",
            hint=f"Put {ours!r} above {name!r}.",
            id="loopless.E002",
        )
        for name in before
        if name in (_STATICFILES, *_RIVALS)
    ]
    found += [
        checks.Warning(
            f"Both {ours!r} and {name!r} replace `runserver`; loopless's is used.",
            hint=f"Remove one of the two, or use `runserver_fast` beside {name!r}.",
            id="loopless.W001",
        )
        for name in names
        if name == "daphne" and name not in before
    ]
    return found
