"""Settings of the example; ASGI_APPLICATION is what makes it a hybrid."""

SECRET_KEY = "for an example only"
DEBUG = True
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["threadwell.adapters.django", "channels"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "chat"
WSGI_APPLICATION = "wsgi.application"
ASGI_APPLICATION = "asgi.application"
# one process, so the groups may live in its memory; several need channels-redis
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
