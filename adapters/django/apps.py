"""The Django app `"threadwell.adapters.django"`: the command `runserver_fast` and checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import register

from . import autoreload, checks

if TYPE_CHECKING:
    from threadwell.worker import ServerConfig


def config_of_command(arguments: Sequence[str]) -> ServerConfig:
    """The configuration of `runserver_fast` or `runserver` with `arguments`, without the apps.

    Raises `ConfigError`.
    """
    # Imported only for an error page: most processes with this app run another command.
    from .command import config_without_apps

    return config_without_apps(arguments)


class ThreadwellConfig(AppConfig):
    """The app with the command, and with a check of the setting `THREADWELL`."""

    name = "threadwell.adapters.django"
    label = "threadwell"
    verbose_name = "threadwell"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Apps are made before models are imported, and models may be what is broken.
        autoreload.run_as_parent("runserver_fast", config_of_command, debug=settings.DEBUG)

    def ready(self) -> None:
        """Register the check."""
        register(checks.check_setting)
