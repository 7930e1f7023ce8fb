"""HTTP without input or output: what holds for any version and any kind of server."""
