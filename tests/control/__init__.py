"""The control socket: what it shows, what it does, and who may use it."""
