"""Requests on threads: who polls, how a request is read, run and answered, how its turn ends."""
