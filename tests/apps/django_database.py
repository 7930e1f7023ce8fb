"""Django on a database, which it is told of as JSON; prints its port, and serves until its input
ends. Then it says how often a connection was made."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection, models, transaction
from django.db.backends.signals import connection_created
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from threadwell import ThreadedServer

MADE: list[str] = []


def item(request: HttpRequest, number: int) -> HttpResponse:
    """Look one up, and write one in twenty."""
    found = Item.objects.get(pk=number % 100 + 1)
    if number % 20 == 0:
        with transaction.atomic():
            Item.objects.filter(pk=found.pk).update(count=models.F("count") + 1)
    return HttpResponse(found.name)


def total(request: HttpRequest) -> HttpResponse:
    """All that was counted."""
    return HttpResponse(str(Item.objects.aggregate(models.Sum("count"))["count__sum"]))


def rows(request: HttpRequest) -> StreamingHttpResponse:
    """Rows without an end, each of them fetched when it is sent."""

    def blocks() -> Iterator[str]:
        while True:
            for found in Item.objects.iterator(10):
                yield found.name * 1000

    return StreamingHttpResponse(blocks())


def fail(request: HttpRequest) -> HttpResponse:
    """A view that ends in the middle of a transaction."""
    with transaction.atomic():
        Item.objects.filter(pk=1).update(count=1000)
        raise SystemExit if "exit" in request.GET else LookupError


urlpatterns = [
    path("item/<int:number>", item),
    path("total", total),
    path("rows", rows),
    path("fail", fail),
]


def main() -> None:
    """Serve until standard input ends."""
    options = json.loads(sys.argv[1])
    settings.configure(
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="for tests only",
        INSTALLED_APPS=[],
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        DATABASES={"default": options["database"]},
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        LOGGING_CONFIG=None,
    )
    django.setup()
    global Item

    class Item(models.Model):
        name = models.CharField(max_length=20)
        count = models.IntegerField(default=0)

        class Meta:
            app_label = "items"

    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS items_item")
    with connection.schema_editor() as editor:
        editor.create_model(Item)
    Item.objects.bulk_create(Item(name=f"item {number}") for number in range(100))
    connection.close()
    connection_created.connect(lambda **_: MADE.append("made"), weak=False)
    with ThreadedServer(get_wsgi_application(), **options["server"]) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        sys.stdin.readline()
    sys.stdout.write(f"{len(MADE)}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
