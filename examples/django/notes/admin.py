"""The notes in the admin."""

from django.contrib import admin

from .models import Note


@admin.register(Note)
class NoteAdmin(admin.ModelAdmin):
    """A list that can be searched."""

    list_display = ["text", "attachment", "created"]
    search_fields = ["text"]
