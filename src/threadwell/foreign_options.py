"""What the options of other servers are called here: data for `option_hints` and for the docs."""

from __future__ import annotations

from typing import NamedTuple

HOST, PORT = "host", "port"


class Foreign(NamedTuple):
    """One flag of another server.

    `ours` is the flag to write instead. It is empty where there is none; then `note` says why, or
    what does it. `takes_value` says whether a value follows the flag. `form` makes the value of
    `ours` from it; without a `{}` it is the value. `HOST` and `PORT` together make one value. A
    switch has no form.
    """

    ours: str = ""
    note: str = ""
    takes_value: bool = True
    form: str = "{}"


def _switch(ours: str = "", note: str = "", form: str = "") -> Foreign:
    return Foreign(ours, note, takes_value=False, form=form)


def _nothing(note: str) -> Foreign:
    return Foreign("", note)


_DEFAULT = _switch(note="already the default")
_SYSTEM = _nothing("set it in systemd or the container")
_LOGGING = _nothing("the application configures the logger threadwell")
_CIPHERS = _nothing("OpenSSL's defaults and --tls-min-version decide")
_TLS_VERSION = _nothing("write --tls-min-version 1.2 or 1.3")
_CLIENT_CERTS = _nothing("write --client-certs none, optional or required")
_NO_FORMAT = _nothing("malformed requests are always refused")
_NO_TUNING = _nothing("threadwell chooses it")
_NO_STATSD = _nothing("Prometheus reads --metrics-bind")
_ONE_PROTOCOL = _nothing("threadwell speaks HTTP and the PROXY protocol only")
_APP = _nothing("give it as the first argument, module:app")
_TRUST = Foreign("--trusted-proxies")

# Hypercorn has them from gunicorn.
_OF_BOTH = {
    "-p": Foreign("--pid-file"),
    "--pid": Foreign("--pid-file"),
    "-u": Foreign("--user"),
    "-g": Foreign("--group"),
    "-m": _SYSTEM,
    "--umask": _SYSTEM,
    "-D": _switch(note="leave that to systemd or Docker"),
    "--daemon": _switch(note="leave that to systemd or Docker"),
    "--access-logfile": Foreign("--access-log"),
    "--access-logformat": Foreign("--log-format"),
    "--error-logfile": _nothing("messages go to standard error"),
    "--log-file": _nothing("messages go to standard error"),
    "--log-config": _LOGGING,
    "--cert-reqs": _CLIENT_CERTS,
    "--ciphers": _CIPHERS,
    "--statsd-host": _NO_STATSD,
    "--statsd-prefix": _NO_STATSD,
}
_WORKER_CLASS = _nothing("threads serve WSGI, event loops ASGI")
_GUNICORN = _OF_BOTH | {
    "-c": Foreign("--config", "the file is TOML here"),
    "--initgroups": _DEFAULT,
    "-k": _WORKER_CLASS,
    "--worker-class": _WORKER_CLASS,
    "--worker-connections": Foreign("--limit-connections"),
    "--worker-tmp-dir": _nothing("workers need no such file"),
    "--timeout": Foreign("--request-timeout"),
    "--keepalive": Foreign("--keep-alive"),
    "--limit-request-fields": Foreign("--limit-fields"),
    "--limit-request-field_size": Foreign("--limit-field-size"),
    "--disable-redirect-access-to-syslog": _DEFAULT,
    "--capture-output": _switch(note="standard error is left to the application"),
    "--enable-stdio-inheritance": _DEFAULT,
    "--logger-class": _LOGGING,
    "--log-config-json": _LOGGING,
    "--log-syslog": _switch(note="write --access-log syslog:"),
    "--log-syslog-to": _nothing("write --access-log syslog:udp://HOST:PORT"),
    "--log-syslog-prefix": _nothing("always threadwell"),
    "--log-syslog-facility": _nothing("write --access-log 'syslog:?facility=NAME'"),
    "-R": _DEFAULT,
    "--dogstatsd-tags": _NO_STATSD,
    "--enable-backlog-metric": _DEFAULT,
    "--chdir": Foreign("--app-dir"),
    "--pythonpath": Foreign("--app-dir"),
    "-e": _SYSTEM,
    "--env": _SYSTEM,
    "-t": Foreign("--request-timeout"),
    "-n": _nothing("with threadwell[titles] the application names processes"),
    "--name": _nothing("with threadwell[titles] the application names processes"),
    "--preload-app": _switch("--preload"),
    "--reload-extra-file": Foreign("--reload-extra"),
    "--reload-engine": _nothing("watchfiles is used where it is installed"),
    "--spew": _switch(note="use a debugger"),
    "--check-config": _switch(note="run threadwell check"),
    "--print-config": _switch(note="run threadwell config show"),
    "--paste": _nothing("run pserve, with use = egg:threadwell"),
    "--paster": _nothing("run pserve, with use = egg:threadwell"),
    "--paste-global": _nothing("run pserve, with use = egg:threadwell"),
    "--forwarded-allow-ips": _TRUST,
    "--proxy-allow-from": _TRUST,
    "--uwsgi-allow-from": _ONE_PROTOCOL,
    "--protocol": _ONE_PROTOCOL,
    "--forwarder-headers": _nothing("write --forwarded-header for each header"),
    "--header-map": _nothing("header names with underscores are always dropped"),
    "--strip-header-spaces": _switch(note=_NO_FORMAT.note),
    "--permit-obsolete-folding": _switch(note=_NO_FORMAT.note),
    "--permit-unconventional-http-method": _switch(note=_NO_FORMAT.note),
    "--permit-unconventional-http-version": _switch(note=_NO_FORMAT.note),
    "--casefold-http-method": _switch(note=_NO_FORMAT.note),
    "--http-parser": _NO_TUNING,
    "--http-protocols": _nothing("write --http2 for HTTP/2"),
    "--http2-cleartext": _nothing("HTTP/2 needs TLS here"),
    "--http2-max-concurrent-streams": Foreign("--http2-streams"),
    "--http2-initial-window-size": _NO_TUNING,
    "--http2-max-frame-size": _NO_TUNING,
    "--http2-max-header-list-size": _nothing("--limit-head is for HTTP/2 too"),
    "--websocket-max-message-size": Foreign("--limit-ws-message"),
    "--asgi-loop": Foreign("--loop"),
    "--asgi-lifespan": Foreign("--lifespan"),
    "--asgi-disconnect-grace-period": _nothing("http.disconnect comes at once"),
    "--no-sendfile": _switch(note="sendfile is used where a file is sent"),
    "--ssl-version": _TLS_VERSION,
    "--do-handshake-on-connect": _DEFAULT,
    "--suppress-ragged-eofs": _DEFAULT,
    "--control-socket": Foreign("--control", form="unix:{}"),
    "--control-socket-mode": _nothing("only the owner may connect"),
    "--no-control-socket": _DEFAULT,
    "--dirty-app": _nothing("use a task queue"),
    "--dirty-workers": _nothing("use a task queue"),
    "--dirty-threads": _nothing("use a task queue"),
    "--dirty-timeout": _nothing("use a task queue"),
    "--dirty-graceful-timeout": _nothing("use a task queue"),
    "-v": _switch("--version"),
}

_UVICORN = {
    "--host": Foreign("--bind", form=HOST),
    "--port": Foreign("--bind", form=PORT),
    "--uds": Foreign("--bind", form="unix:{}"),
    "--fd": Foreign("--bind", form="fd://{}"),
    "--ssl-certfile": Foreign("--certfile"),
    "--ssl-keyfile": Foreign("--keyfile"),
    "--ssl-keyfile-password": _nothing("write --keyfile-password-file FILE"),
    "--ssl-ca-certs": Foreign("--ca-certs"),
    "--ssl-cert-reqs": _CLIENT_CERTS,
    "--ssl-ciphers": _CIPHERS,
    "--ssl-version": _TLS_VERSION,
    "--timeout-keep-alive": Foreign("--keep-alive"),
    "--timeout-graceful-shutdown": Foreign("--graceful-timeout"),
    "--timeout-worker-healthcheck": Foreign("--worker-timeout"),
    "--limit-concurrency": Foreign(
        "--limit-connections", "beyond it clients wait; there is no 503"
    ),
    "--limit-max-requests": Foreign("--max-requests"),
    "--limit-max-requests-jitter": Foreign("--max-requests-jitter"),
    "--ws-max-size": Foreign("--limit-ws-message"),
    "--ws-max-queue": Foreign("--limit-ws-queue"),
    "--ws-per-message-deflate": _nothing("write --ws-compression deflate or off"),
    "--h11-max-incomplete-event-size": Foreign("--limit-head"),
    "--proxy-headers": _switch(note="write --trusted-proxies ADDRESS"),
    "--no-proxy-headers": _DEFAULT,
    "--forwarded-allow-ips": _TRUST,
    "--no-server-header": _switch("--server-header", form="none"),
    "--date-header": _DEFAULT,
    "--no-date-header": _switch(note="HTTP requires Date"),
    "--no-access-log": _DEFAULT,
    "--use-colors": _switch(note="messages have no colors"),
    "--no-use-colors": _DEFAULT,
    "--reset-contextvars": _DEFAULT,
    "--log-config": _LOGGING,
    "--env-file": _SYSTEM,
    "--http": _NO_TUNING,
    "--ws": _NO_TUNING,
    "--reload-delay": _NO_TUNING,
}

_WAITRESS = {
    "--host": Foreign("--bind", form=HOST),
    "--port": Foreign("--bind", form=PORT),
    "--listen": Foreign("--bind"),
    "--unix-socket": Foreign("--bind", form="unix:{}"),
    "--unix-socket-perms": Foreign("--unix-permissions"),
    "--call": _switch("--factory"),
    "--trusted-proxy": _TRUST,
    "--trusted-proxy-count": Foreign("--proxy-hops"),
    "--trusted-proxy-headers": _nothing("write --forwarded-header for each header"),
    "--channel-timeout": Foreign("--keep-alive"),
    "--cleanup-interval": _NO_TUNING,
    "--connection-limit": Foreign("--limit-connections"),
    "--max-request-body-size": Foreign("--limit-body"),
    "--max-request-header-size": Foreign("--limit-head"),
    "--inbuf-overflow": Foreign("--memory-body"),
    "--outbuf-overflow": _nothing("responses are sent as they are produced"),
    "--outbuf-high-watermark": _nothing("responses are sent as they are produced"),
    "--channel-request-lookahead": _NO_TUNING,
    "--recv-bytes": _NO_TUNING,
    "--send-bytes": _NO_TUNING,
    "--asyncore-loop-timeout": _NO_TUNING,
    "--asyncore-use-poll": _DEFAULT,
    "--expose-tracebacks": _switch(note="the framework's debug mode shows them"),
    "--ident": Foreign("--server-header"),
    "--no-ipv4": _switch(note="write --bind for each address"),
    "--no-ipv6": _switch(note="write --bind for each address"),
    "--url-prefix": _nothing("a trusted proxy sends X-Forwarded-Prefix"),
    "--url-scheme": _nothing("a trusted proxy sends X-Forwarded-Proto"),
}

_GRANIAN = {
    "--host": Foreign("--bind", form=HOST),
    "--port": Foreign("--bind", form=PORT),
    "--uds": Foreign("--bind", form="unix:{}"),
    "--uds-permissions": Foreign("--unix-permissions"),
    "--http": _nothing("write --http2 for HTTP/2"),
    "--ws": _DEFAULT,
    "--no-ws": _switch(note="an application without WebSockets refuses them"),
    "--runtime-threads": _NO_TUNING,
    "--runtime-blocking-threads": _NO_TUNING,
    "--runtime-mode": _NO_TUNING,
    "--task-impl": _NO_TUNING,
    "--blocking-threads": Foreign("--threads"),
    "--blocking-threads-idle-timeout": _nothing("idle threads stay"),
    "--backpressure": Foreign("--limit-connections"),
    "--http1-buffer-size": _NO_TUNING,
    "--http1-header-read-timeout": Foreign("--head-timeout", "in seconds here"),
    "--http1-keep-alive": _DEFAULT,
    "--no-http1-keep-alive": _switch("--keep-alive", form="0"),
    "--http1-pipeline-flush": _DEFAULT,
    "--no-http1-pipeline-flush": _switch(note=_NO_TUNING.note),
    "--http2-adaptive-window": _switch(note=_NO_TUNING.note),
    "--no-http2-adaptive-window": _DEFAULT,
    "--http2-initial-connection-window-size": _NO_TUNING,
    "--http2-initial-stream-window-size": _NO_TUNING,
    "--http2-keep-alive-interval": _NO_TUNING,
    "--http2-keep-alive-timeout": Foreign("--keep-alive"),
    "--http2-max-concurrent-streams": Foreign("--http2-streams"),
    "--http2-max-frame-size": _NO_TUNING,
    "--http2-max-headers-size": _nothing("--limit-head is for HTTP/2 too"),
    "--http2-max-send-buffer-size": _NO_TUNING,
    "--log": _DEFAULT,
    "--no-log": _switch("--log-level", form="critical"),
    "--log-config": _LOGGING,
    "--no-access-log": _DEFAULT,
    "--access-log-fmt": Foreign("--log-format"),
    "--ssl-certificate": Foreign("--certfile"),
    "--ssl-keyfile": Foreign("--keyfile"),
    "--ssl-keyfile-password": _nothing("write --keyfile-password-file FILE"),
    "--ssl-ca": Foreign("--ca-certs"),
    "--ssl-client-verify": _switch("--client-certs", form="required"),
    "--no-ssl-client-verify": _DEFAULT,
    "--ssl-protocol-min": _TLS_VERSION,
    "--ssl-crl": _nothing("use short-lived certificates"),
    "--url-path-prefix": Foreign("--root-path", "for ASGI; WSGI reads X-Forwarded-Prefix"),
    "--no-factory": _DEFAULT,
    "--respawn-failed-workers": _DEFAULT,
    "--no-respawn-failed-workers": _switch(note="a worker that ends is always replaced"),
    "--respawn-interval": _NO_TUNING,
    "--workers-lifetime": Foreign("--max-age"),
    "--workers-max-rss": Foreign("--max-rss", "in bytes here; 500M is 500 MiB", form="{}M"),
    "--rss-sample-interval": _nothing("memory is checked once a second"),
    "--rss-samples": _nothing("memory is checked once a second"),
    "--workers-kill-timeout": Foreign("--graceful-timeout"),
    "--working-dir": Foreign("--app-dir"),
    "--env-files": _SYSTEM,
    "--static-path-route": _nothing("write --static /PREFIX=FOLDER"),
    "--static-path-mount": _nothing("write --static /PREFIX=FOLDER"),
    "--static-path-dir-to-file": Foreign("--static-index"),
    "--static-path-expires": Foreign("--static-max-age"),
    "--metrics": _switch("--metrics-bind", form="127.0.0.1:9090"),
    "--no-metrics": _DEFAULT,
    "--metrics-address": _nothing("write --metrics-bind HOST:PORT"),
    "--metrics-port": _nothing("write --metrics-bind HOST:PORT"),
    "--metrics-scrape-interval": _NO_TUNING,
    "--reload-paths": Foreign("--reload-dir"),
    "--reload-ignore-dirs": Foreign("--reload-exclude"),
    "--reload-ignore-patterns": Foreign(
        "--reload-exclude", "a glob pattern, not a regular expression"
    ),
    "--reload-ignore-paths": Foreign("--reload-exclude"),
    "--reload-tick": _NO_TUNING,
    "--reload-ignore-worker-failure": _DEFAULT,
    "--no-reload-ignore-worker-failure": _switch(note="a broken application never ends --reload"),
    "--no-reload": _DEFAULT,
    "--process-name": _nothing("with threadwell[titles] the application names processes"),
}

_HYPERCORN = _OF_BOTH | {
    "-c": Foreign("--config", "the file has other keys here"),
    "-k": _nothing("write --loop"),
    "--worker-class": _nothing("write --loop"),
    "--debug": _switch("--log-level", form="debug"),
    "--error-log": _nothing("messages go to standard error"),
    "--verify-mode": _CLIENT_CERTS,
    "--insecure-bind": Foreign("--bind", form="http://{}"),
    "--quic-bind": _nothing("leave HTTP/3 to a proxy"),
    "--read-timeout": Foreign("--body-timeout"),
    "--server-name": _nothing("a proxy or the framework checks Host"),
    "--websocket-ping-interval": Foreign("--ws-ping-interval"),
}

_DAPHNE = {
    "-b": Foreign("--bind", form=HOST),
    "-p": Foreign("--bind", form=PORT),
    "--port": Foreign("--bind", form=PORT),
    "-u": Foreign("--bind", form="unix:{}"),
    "--unix-socket": Foreign("--bind", form="unix:{}"),
    "--fd": Foreign("--bind", form="fd://{}"),
    "-e": _nothing("write --bind, and --certfile for TLS"),
    "--endpoint": _nothing("write --bind, and --certfile for TLS"),
    "-v": _nothing("write --log-level"),
    "--verbosity": _nothing("write --log-level"),
    "--http-timeout": Foreign("--request-timeout"),
    "--log-fmt": _LOGGING,
    "--ping-interval": Foreign("--ws-ping-interval"),
    "--ping-timeout": Foreign("--ws-ping-timeout"),
    "--websocket_timeout": _nothing("a WebSocket has no time limit"),
    "--websocket_connect_timeout": _nothing("there is no time limit"),
    "--websocket-max-message-size": Foreign("--limit-ws-message"),
    "--websocket-max-frame-size": Foreign("--limit-ws-message"),
    "--application-close-timeout": Foreign("--graceful-timeout"),
    "--proxy-headers": _switch(note="write --trusted-proxies ADDRESS"),
    "--proxy-headers-host": _nothing("write --forwarded-header for each header"),
    "--proxy-headers-port": _nothing("write --forwarded-header for each header"),
    "-s": Foreign("--server-header"),
    "--server-name": Foreign("--server-header"),
    "--no-server-name": _switch("--server-header", form="none"),
}

_UWSGI = {
    "--ini": _nothing("write --config FILE, in TOML"),
    "--http": Foreign("--bind"),
    "--http-socket": Foreign("--bind"),
    "--socket": Foreign("--bind", "it speaks HTTP: use proxy_pass in nginx"),
    "--chmod-socket": Foreign("--unix-permissions"),
    "--module": _APP,
    "--wsgi-file": _APP,
    "--callable": _APP,
    "--processes": Foreign("--workers"),
    "--master": _DEFAULT,
    "--lazy-apps": _DEFAULT,
    "--enable-threads": _DEFAULT,
    "--vacuum": _DEFAULT,
    "--die-on-term": _DEFAULT,
    "--need-app": _DEFAULT,
    "--listen": Foreign("--backlog"),
    "--harakiri": Foreign("--request-timeout"),
    "--reload-on-rss": Foreign("--max-rss", "in bytes here; 500M is 500 MiB", form="{}M"),
    "--max-worker-lifetime": Foreign("--max-age"),
    "--py-autoreload": Foreign("--reload", "takes no value here", form=""),
    "--touch-reload": _nothing("send SIGHUP to a server with --workers"),
    "--static-map": Foreign("--static"),
    "--limit-post": Foreign("--limit-body"),
    "--post-buffering": Foreign("--memory-body"),
    "--buffer-size": Foreign("--limit-head"),
    "--uid": Foreign("--user"),
    "--gid": Foreign("--group"),
    "--pidfile": Foreign("--pid-file"),
    "--stats": _nothing("write --control unix:/PATH, or --metrics-bind HOST:PORT"),
    "--logto": _nothing("messages go to standard error"),
    "--daemonize": _SYSTEM,
    "--virtualenv": _nothing("install threadwell into it"),
    "--cron": _nothing("use a task queue or a systemd timer"),
    "--mule": _nothing("use a task queue"),
    "--attach-daemon": _SYSTEM,
}

#: The flags of each server, in the order in which a flag of several is looked up.
SERVERS: dict[str, dict[str, Foreign]] = {
    "gunicorn": _GUNICORN,
    "uvicorn": _UVICORN,
    "granian": _GRANIAN,
    "hypercorn": _HYPERCORN,
    "waitress": _WAITRESS,
    "daphne": _DAPHNE,
    "uWSGI": _UWSGI,
}
