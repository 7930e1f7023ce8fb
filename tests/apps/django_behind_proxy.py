"""A Django site that says what it knows of a request, for the tests of proxies."""

from __future__ import annotations

import json
import sys

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path, reverse

from threadwell import ThreadedServer


def told(request: HttpRequest) -> JsonResponse:
    """What Django makes of it."""
    return JsonResponse(
        {
            "secure": request.is_secure(),
            "host": request.get_host(),
            "port": request.get_port(),
            "client": request.META.get("REMOTE_ADDR"),
            "url": request.build_absolute_uri(),
            "reverse": reverse("told"),
            "forwarded": sorted(name for name in request.headers if "orwarded" in name),
        }
    )


urlpatterns = [path("told", told, name="told")]


def main() -> None:
    """Serve as told on the command line until standard input ends."""
    kind, options = sys.argv[1], json.loads(sys.argv[2])
    # what a site behind a proxy has, and what a forged header must not reach
    believing = {
        "SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https"),
        "USE_X_FORWARDED_HOST": True,
        "USE_X_FORWARDED_PORT": True,
    }
    settings.configure(
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="for tests only",
        LOGGING_CONFIG=None,
        **(believing if "believing" in sys.argv else {}),
    )
    django.setup()
    app = get_asgi_application() if kind == "asgi" else get_wsgi_application()
    with ThreadedServer(app, bind="127.0.0.1:0", threads=2, **options) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
