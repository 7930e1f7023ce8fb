"""Listening sockets: parsing an address, binding, and closing without losing a client."""
