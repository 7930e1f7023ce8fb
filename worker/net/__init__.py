"""Listening sockets: parsing addresses, binding, and closing without resetting clients."""
