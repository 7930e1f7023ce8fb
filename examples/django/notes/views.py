"""A page with a form, a JSON API, and a stream of server-sent events."""

import json
import time
from collections.abc import Iterator

from django.contrib import messages
from django.db import connection
from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponse,
    JsonResponse,
    StreamingHttpResponse,
)
from django.shortcuts import get_object_or_404
from django.urls import reverse_lazy
from django.views.decorators.http import require_GET
from django.views.generic import CreateView

from .forms import NoteForm
from .models import Note

# Seconds between two looks at the database by a stream.
PAUSE = 0.5


class NoteList(CreateView):
    """The newest notes, and a form for another; the session counts what its visitor has written."""

    model = Note
    form_class = NoteForm
    template_name = "notes/list.html"
    success_url = reverse_lazy("notes:list")

    def get_context_data(self, **kwargs: object) -> dict[str, object]:
        """The notes, and how many are the visitor's."""
        notes = Note.objects.all()[:50]
        written = self.request.session.get("written", 0)
        return super().get_context_data(notes=notes, written=written, **kwargs)

    def form_valid(self, form: NoteForm) -> HttpResponse:
        """Keep the note."""
        session = self.request.session
        session["written"] = session.get("written", 0) + 1
        messages.success(self.request, "The note is kept.")
        return super().form_valid(form)


@require_GET
def attachment(request: HttpRequest, pk: int) -> FileResponse:
    """The file of a note, always as a download: nobody knows what visitors upload."""
    note = get_object_or_404(Note, pk=pk)
    if not note.attachment:
        raise Http404("This note has no file")
    return FileResponse(note.attachment.open(), as_attachment=True)


@require_GET
def api(request: HttpRequest) -> JsonResponse:
    """The newest notes as JSON."""
    notes = Note.objects.values("id", "text", "created")[:50]
    return JsonResponse({"notes": list(notes)})


@require_GET
def events(request: HttpRequest) -> StreamingHttpResponse:
    """How many notes there are, whenever that changes, as server-sent events."""
    return StreamingHttpResponse(
        counts(), content_type="text/event-stream", headers={"Cache-Control": "no-store"}
    )


def counts() -> Iterator[str]:
    """An event for each new count; a comment in between, by which a lost client is noticed."""
    known = None
    while True:
        count = Note.objects.count()
        # a stream may last for hours, and needs no connection while it waits
        connection.close()
        if count == known:
            yield ": still here\n\n"
        else:
            yield f"data: {json.dumps({'notes': count})}\n\n"
            known = count
        time.sleep(PAUSE)
