"""What a visitor may fill in."""

from django import forms

from .models import Note


class NoteForm(forms.ModelForm):
    """A new note."""

    class Meta:
        model = Note
        fields = ["text", "attachment"]
