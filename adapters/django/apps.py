"""The app `"threadwell.adapters.django"`: its command `runserver_fast`, and its checks."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import register

from . import autoreload, checks


class ThreadwellConfig(AppConfig):
    """Brings the command, and checks the setting `THREADWELL`."""

    name = "threadwell.adapters.django"
    label = "threadwell"
    verbose_name = "threadwell"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Apps are made before models are imported, which may be what is broken.
        if settings.DEBUG:
            autoreload.take_over("runserver_fast")

    def ready(self) -> None:
        """Register the checks."""
        register(checks.check_setting)
