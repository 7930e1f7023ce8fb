"""The Django app `"threadwell.adapters.django.runserver"`: `runserver` on threadwell."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import register

from threadwell.adapters.django import autoreload, checks
from threadwell.adapters.django.apps import config_of_command


class RunserverConfig(AppConfig):
    """Replaces `runserver`. List it above `django.contrib.staticfiles`."""

    name = "threadwell.adapters.django.runserver"
    label = "threadwell_runserver"
    verbose_name = "threadwell as runserver"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        autoreload.run_as_parent("runserver", config_of_command, debug=settings.DEBUG)

    def ready(self) -> None:
        """Register the checks."""
        register(checks.check_setting)
        register(checks.check_order)
