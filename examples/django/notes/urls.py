"""Where the views are."""

from django.urls import path

from . import views

app_name = "notes"
urlpatterns = [
    path("", views.NoteList.as_view(), name="list"),
    path("notes/<int:pk>/file", views.attachment, name="file"),
    path("api/notes", views.api, name="api"),
    path("events", views.events, name="events"),
]
