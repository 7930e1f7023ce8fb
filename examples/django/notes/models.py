"""What is kept."""

from django.db import models


class Note(models.Model):
    """A short text, with a file if one is wanted."""

    text = models.CharField(max_length=200)
    attachment = models.FileField(upload_to="notes/", blank=True)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created", "-pk"]

    def __str__(self) -> str:
        return self.text
