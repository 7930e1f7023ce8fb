"""What other servers' options are called here, for who types them."""

from __future__ import annotations

_BIND = "--bind HOST:PORT"
_NONE = ""

#: Flags of gunicorn, uvicorn and waitress-serve, and the words to say instead; empty where there is
#: nothing like it, which docs/differences.md explains.
FOREIGN_OPTIONS = {
    # gunicorn
    "-b": "--bind",
    "-w": "--workers",
    "-t": "--worker-timeout",
    "--timeout": "--worker-timeout",
    "-c": "--config",
    "-p": "--pid-file, or for a port --bind",
    "--pid": "--pid-file",
    "-u": "--user",
    "-g": "--group",
    "--keepalive": "--keep-alive",
    "--worker-connections": "--limit-connections",
    "--limit-request-fields": "--limit-fields",
    "--limit-request-field_size": "--limit-field-size",
    "--access-logfile": "--access-log",
    "--access-logformat": "--log-format",
    "--chdir": "--app-dir",
    "--pythonpath": "--app-dir",
    "--check-config": "the command `loopless check`",
    "--print-config": "the command `loopless config show`",
    "--reload-extra-file": "--reload-extra",
    "--preload-app": "--preload",
    "--paste": "pserve, with `use = egg:loopless`",
    "--forwarded-allow-ips": "--trusted-proxies",
    "--proxy-allow-from": "--trusted-proxies",
    "--statsd-host": "--metrics-bind",
    "-k": _NONE,
    "--worker-class": _NONE,
    "-D": _NONE,
    "--daemon": _NONE,
    "-m": _NONE,
    "--umask": _NONE,
    "--error-logfile": _NONE,
    "--log-file": _NONE,
    "--capture-output": _NONE,
    # uvicorn
    "--host": _BIND,
    "--port": _BIND,
    "--uds": "--bind unix:/PATH",
    "--fd": "--bind fd://N",
    "--ssl-certfile": "--certfile",
    "--ssl-keyfile": "--keyfile",
    "--ssl-keyfile-password": "--keyfile-password-file",
    "--ssl-ca-certs": "--ca-certs",
    "--ssl-cert-reqs": "--client-certs",
    "--timeout-keep-alive": "--keep-alive",
    "--timeout-graceful-shutdown": "--graceful-timeout",
    "--timeout-worker-healthcheck": "--worker-timeout",
    "--limit-concurrency": "--limit-connections",
    "--limit-max-requests": "--max-requests",
    "--limit-max-requests-jitter": "--max-requests-jitter",
    "--ws-max-size": "--limit-ws-message",
    "--ws-max-queue": "--limit-ws-queue",
    "--h11-max-incomplete-event-size": "--limit-head",
    "--proxy-headers": "--trusted-proxies",
    "--log-config": _NONE,
    "--env-file": _NONE,
    "--http": _NONE,
    "--ws": _NONE,
    "--reload-delay": _NONE,
    "--ssl-ciphers": _NONE,
    # waitress-serve
    "--listen": "--bind",
    "--unix-socket": "--bind unix:/PATH",
    "--unix-socket-perms": "--unix-permissions",
    "--call": "--factory",
    "--trusted-proxy": "--trusted-proxies",
    "--trusted-proxy-count": "--proxy-hops",
    "--trusted-proxy-headers": "--forwarded-header",
    "--channel-timeout": "--keep-alive",
    "--connection-limit": "--limit-connections",
    "--max-request-body-size": "--limit-body",
    "--max-request-header-size": "--limit-head",
    "--expose-tracebacks": _NONE,
    "--ident": _NONE,
}


def instead_of(flag: str) -> str | None:
    """What to say to who typed `flag`; None if it is of no other server that is known."""
    if flag not in FOREIGN_OPTIONS:
        return None
    ours = FOREIGN_OPTIONS[flag]
    return f"here it is {ours}" if ours else "there is nothing like it here"
