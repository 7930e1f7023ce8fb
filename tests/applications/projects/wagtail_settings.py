"""What differs from the settings that `wagtail start` writes for development."""

from mysite.settings.dev import *  # noqa: F403
from mysite.settings.dev import INSTALLED_APPS as OF_THE_TEMPLATE

INSTALLED_APPS = ["threadwell.adapters.django", *OF_THE_TEMPLATE]
ALLOWED_HOSTS = ["127.0.0.1"]
CSRF_TRUSTED_ORIGINS: list[str] = []
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
