"""`manage.py runserver`, for projects that list `threadwell.adapters.django.runserver`."""

from __future__ import annotations

from threadwell.adapters.django.command import ThreadwellCommand, runserver_below


class Command(ThreadwellCommand, runserver_below("threadwell.adapters.django.runserver")):  # type: ignore[misc]
    """`runserver` on threadwell."""
