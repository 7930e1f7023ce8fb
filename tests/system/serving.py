"""Every command that serves, on a unix socket, with standard streams that a test chooses."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import subprocess
from pathlib import Path

from ..helpers.waiting import until

APP = """
import threading
waiting = threading.Event()
def app(environ, start_response):
    if environ["PATH_INFO"] == "/print":
        print("x" * 70000, flush=True)
    if environ["PATH_INFO"] == "/wait":
        start_response("200 OK", [])
        def body():
            yield b"begun"
            waiting.wait()
        return body()
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]
"""
FLASK = "from flask import Flask\napp = Flask(__name__)\napp.route('/')(lambda: 'hello')\n"
DJANGO = """
import os, sys
from django.conf import settings
from django.http import HttpResponse
from django.urls import path
DEBUG = True
INSTALLED_APPS = ["threadwell.adapters.django"]
ROOT_URLCONF = "manage"
SECRET_KEY = "x"
urlpatterns = [path("", lambda request: HttpResponse("hello"))]
if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "manage"
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
"""
ASGI = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
"""
PATIENCE = 20

#: Each command that serves, with what must stand behind it.
COMMANDS = {
    "threads": ["-m", "threadwell", "app:app"],
    "workers": ["-m", "threadwell", "app:app", "--workers", "2"],
    "asgi": ["-m", "threadwell", "asgi_app:app"],
    "asgi workers": ["-m", "threadwell", "asgi_app:app", "--workers", "2"],
    "preload": ["-m", "threadwell", "app:app", "--workers", "2", "--preload"],
    "reload": ["-m", "threadwell", "app:app", "--reload"],
    "flask": ["-m", "flask", "--app", "site_of_flask", "serve"],
    "flask debug": ["-m", "flask", "--app", "site_of_flask", "--debug", "serve"],
    "django": ["manage.py", "runserver_fast", "--noreload"],
    "django reload": ["manage.py", "runserver_fast"],
    "django workers": ["manage.py", "runserver_fast", "--noreload", "--workers", "2"],
    "serve": ["serving.py"],
}


class Serving:
    """A command that listens on a unix socket, and whose streams nobody reads."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path) -> None:
        self.process = process
        self._path = path

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        try:
            sock.connect(str(self._path))
        except OSError:
            sock.close()
            raise
        return sock

    def listens(self) -> bool:
        assert self.process.poll() is None, f"it ended with {self.process.returncode}"
        with contextlib.suppress(OSError), self.connect():
            return True
        return False

    def begin(self, path: str, fields: str = "") -> socket.socket:
        until(self.listens)
        sock = self.connect()
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode())
        return sock

    def get(self) -> bytes:
        with self.begin("/") as sock:
            response = http.client.HTTPResponse(sock)
            response.begin()
            return response.read()

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)
