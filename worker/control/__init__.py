"""Control of a running server over a unix socket: what runs, and commands. See docs/control.md."""
