"""The routes of the Django project in budget_apps.py."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.urls import path


def item(request: HttpRequest, number: int) -> JsonResponse:  # noqa: ARG001
    """Answer with JSON."""
    return JsonResponse({"message": "Hello, world!", "number": number})


urlpatterns = [path("items/<int:number>", item)]
