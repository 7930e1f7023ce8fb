"""TLS: contexts, sessions on non-blocking sockets, certificates."""
