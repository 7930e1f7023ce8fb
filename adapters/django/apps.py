"""The Django app `"threadwell.adapters.django"`: the command `runserver_fast` and checks."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import register

from . import autoreload, checks


class ThreadwellConfig(AppConfig):
    """The app with the command, and with a check of the setting `THREADWELL`."""

    name = "threadwell.adapters.django"
    label = "threadwell"
    verbose_name = "threadwell"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Apps are made before models are imported, and models may be what is broken.
        if settings.DEBUG:
            autoreload.run_as_parent("runserver_fast")

    def ready(self) -> None:
        """Register the check."""
        register(checks.check_setting)
