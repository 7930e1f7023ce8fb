"""Requests on threads: polling, reading, running, answering, and what follows the answer."""
