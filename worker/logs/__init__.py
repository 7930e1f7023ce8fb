"""The access log: what is in a line, and where it goes."""
