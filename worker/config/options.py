"""The options as a type: for editors and type checkers. Written by scripts/docs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict


class Options(TypedDict, total=False):
    """The keyword arguments of `serve` and others. See docs/settings.md."""

    bind: str | int | Sequence[str | int]
    """Address to listen on: PORT, HOST:PORT, [IPV6]:PORT, unix:/PATH, unix:@NAME (an abstract
    socket, to which every local user may connect) or fd://N. May be repeated. An http://
    before the address switches TLS off for it. (default: ("127.0.0.1:8000",))
    """
    backlog: int
    """Maximum number of connections that the kernel queues until they are accepted. (default:
    2048)
    """
    unix_permissions: str
    """Permissions of a unix socket in octal, such as 660. Empty leaves them to the umask.
    (default: "")
    """
    reuse_port: bool
    """Share a TCP port with other servers that also set SO_REUSEPORT; the kernel distributes the
    connections. The workers of one server do not need it. (default: False)
    """
    threads: int
    """Number of threads that run requests; 0 chooses 8, or on free-threaded Python twice the
    number of cores if that is more. (default: 0)
    """
    max_streams: int
    """Maximum number of long responses (streams and hijacked sockets) at once, each on an extra
    thread. Beyond it the answer is 503. (default: 500)
    """
    poller: Literal["auto", "epoll", "kqueue", "queue"]
    """How the server waits for connections: epoll (Linux), kqueue (macOS, BSD), or queue, which
    works everywhere and uses one thread to distribute connections. auto chooses the best one
    available. (default: "auto")
    """
    workers: int | Literal["auto"]
    """Number of worker processes under a supervisor. auto (or 0) starts one for each available
    core, or a single one on free-threaded Python. 1 serves in the started process, unless
    another option needs a supervisor. (default: 1)
    """
    preload: bool
    """Import the application once, in a process from which the workers are forked. They share
    its memory and start at once. (default: False)
    """
    worker_timeout: float
    """Replace a worker that has accepted no request for this long, because all its threads are
    busy or it is stuck. 0 never replaces it. (seconds, default: 30.0)
    """
    request_timeout: float
    """Abandon a request that runs for this long without having begun its response. On an event
    loop it is cancelled and answered with 503. A thread cannot be interrupted: the worker is
    drained and replaced, and the request is cut. 0 sets no limit. (seconds, default: 0.0)
    """
    start_timeout: float
    """Time for a worker to import the application and become ready; then it is killed and its
    traceback is logged. A reload that takes longer is abandoned, and the old application
    keeps serving. 0 waits without limit. (seconds, default: 60.0)
    """
    max_requests: int
    """Replace a worker after about this many requests; the count is checked once a second. 0
    never replaces it. (default: 0)
    """
    max_requests_jitter: int
    """Add a random number of requests, up to this one, to max_requests, so that workers are not
    all replaced at once. (default: 0)
    """
    max_rss: int | str
    """Replace a worker whose resident memory exceeds this size. 0 never replaces it. (bytes,
    default: 0)
    """
    max_age: float
    """Replace a worker that is this old. 0 never replaces it. (seconds, default: 0.0)"""
    max_age_jitter: float
    """Add a random time, up to this one, to max_age, so that workers are not all replaced at
    once. (seconds, default: 0.0)
    """
    pid_file: str
    """File for the id of the process that receives signals. It is written once the addresses are
    bound and removed at exit. (default: "")
    """
    user: str
    """User (name or number) to which worker processes switch before they import the application.
    The supervisor stays root to bind ports and read keys. (default: "")
    """
    group: str
    """Group to which worker processes switch. Empty chooses the group of the user. (default: "")"""
    loop: Literal["auto", "asyncio", "uvloop"]
    """Event loop of an ASGI application: asyncio or uvloop. auto chooses uvloop where it is
    installed. (default: "auto")
    """
    loops: int
    """Number of event loops of an ASGI application, each with its own thread and lifespan. 0
    chooses one for each core on free-threaded Python, else one; beside a sync application
    always one. (default: 0)
    """
    lifespan: Literal["auto", "on", "off"]
    """Whether to run the ASGI lifespan protocol. With on, an application that does not support
    it is refused; with auto it is served without it. (default: "auto")
    """
    root_path: str
    """Path under which a proxy serves an ASGI application, such as /api. It becomes root_path in
    the scope. (default: "")
    """
    asgi_pathsend: bool
    """Offer http.response.pathsend to ASGI applications, so that the server sends files by path.
    Middleware that compresses or changes bodies then misses them, or fails. (default: False)
    """
    limit_ws_message: int | str
    """Maximum size of a WebSocket message after decompression. The connection closes with code
    1009 as soon as a frame announces more. (bytes, default: 16777216)
    """
    limit_ws_queue: int
    """Maximum number of WebSocket messages that wait for the application. Reading pauses when it
    is reached. (default: 32)
    """
    ws_ping_interval: float
    """Time between two pings on a WebSocket. 0 sends none. (seconds, default: 20.0)"""
    ws_ping_timeout: float
    """Time for a client to answer a ping. Then the connection closes with code 1011. (seconds,
    default: 20.0)
    """
    ws_compression: Literal["deflate", "off"]
    """Compression offered to WebSocket clients: deflate (permessage-deflate), or off. (default:
    "deflate")
    """
    certfile: str
    """PEM file with the server's certificate, followed by its intermediate certificates.
    Switches TLS on. (default: "")
    """
    keyfile: str
    """PEM file with the private key, if it is not in certfile. (default: "")"""
    keyfile_password: str
    """Password of an encrypted private key. (default: "")"""
    keyfile_password_file: str
    """File whose first line is the password of an encrypted private key. There is no flag for
    the password itself, since all users can read command lines; set
    THREADWELL_KEYFILE_PASSWORD instead. (default: "")
    """
    cert: Literal["adhoc", ""]
    """Set to adhoc to generate a certificate for development with trustme. Switches TLS on.
    (default: "")
    """
    ca_certs: str
    """Certificate authorities whose client certificates are accepted: a PEM file, or a directory
    of hashed ones. (default: "")
    """
    client_certs: Literal["none", "optional", "required"]
    """Whether to request client certificates. With required, clients without one are refused in
    the handshake. (default: "none")
    """
    tls_min_version: Literal["1.2", "1.3"]
    """Minimum TLS version. (default: "1.2")"""
    trusted_proxies: str | Sequence[str]
    """Addresses and networks of trusted proxies, such as 10.0.0.0/8; unix trusts peers of a unix
    socket, and * trusts every peer, for servers that only the proxy can reach. May be
    repeated. Empty trusts none. (default: ())
    """
    forwarded_header: str | Sequence[str]
    """Header that the trusted proxies set or overwrite in every request: X-Forwarded-For,
    X-Forwarded-Proto, X-Forwarded-Host, X-Forwarded-Port or X-Forwarded-Prefix, or Forwarded
    (RFC 7239) alone. May be repeated. (default: ("x-forwarded-for", "x-forwarded-proto"))
    """
    proxy_hops: int
    """Number of proxies in front of the server: the client is this entry from the right,
    whatever its address. 0 takes the first address from the right that is not trusted.
    (default: 0)
    """
    proxy_protocol: bool
    """Expect a PROXY header (version 1 or 2) at the start of every connection, as HAProxy and
    load balancers send it. Only trusted_proxies may connect then. (default: False)
    """
    proxy_protocol_timeout: float
    """Time for a complete PROXY header to arrive. (seconds, default: 5.0)"""
    static: str | Sequence[str]
    """Serve the files of a folder without the application: /PREFIX=FOLDER. May be repeated. A
    missing file below the prefix is 404, but below / the request goes to the application. The
    command needs no application then, and serves index.html for a folder. (default: ())
    """
    static_index: str
    """Name of the file served for a folder, such as index.html. Empty answers 404 for folders.
    (default: "")
    """
    static_max_age: int
    """Time that clients may cache a file before they ask again. (seconds, default: 60)"""
    static_immutable: str
    """Regular expression for the paths of files that never change; clients may cache these
    without limit. Empty matches none. (default: "\\\\.(?=[0-9]*[a-f])[0-9a-f]{12,64}\\\\.")
    """
    static_refresh: bool
    """Look files up at each request instead of once at the start. --reload switches it on.
    (default: False)
    """
    http2: bool
    """Offer HTTP/2 in the TLS handshake (ALPN). Needs TLS and the hpack library. (default:
    False)
    """
    http2_streams: int
    """Maximum number of concurrent requests on an HTTP/2 connection. Further ones are refused
    before they run. (default: 100)
    """
    http2_send_buffer: int | str
    """Maximum size of the responses that wait in memory for the client of an HTTP/2 connection.
    Beyond it, further requests of the connection wait until the client reads. (bytes,
    default: 16777216)
    """
    http2_send_buffer_total: int | str
    """The same for all HTTP/2 connections of a process together. Beyond it, responses are
    dropped, the largest first: those of clients that read too slowly, and of connections for
    which more than http2_send_buffer waits. (bytes, default: 268435456)
    """
    server_header: str
    """Value of the Server field, unless the application sets one. none leaves the field out.
    (default: "threadwell")
    """
    header: str | Sequence[str]
    """Field to add to every response beside those of the application, such as 'X-Frame-Options:
    DENY'. May be repeated. (default: ())
    """
    access_log: str
    """Write one line for each request to this file; - is standard output, syslog: the local
    syslog, and syslog:udp://HOST:PORT or syslog:tcp://HOST:PORT a remote one; logging is the
    logger threadwell.access. Empty switches the access log off. (default: "")
    """
    access_log_skip: str | Sequence[str]
    """Path, such as /healthz, that is left out of the access log with all paths below it, unless
    the answer is an error. May be repeated. (default: ())
    """
    log_format: str
    """Access log format: common, combined, json, or an Apache format string such as '%h "%r" %>s
    %b %D'. (default: "combined")
    """
    error_log_format: Literal["text", "json"]
    """Format of the server's messages: text, or json for one object per line, with the traceback
    and the request id. (default: "text")
    """
    log_level: Literal["debug", "info", "warning", "error", "critical"]
    """Minimum severity of the messages that are logged. (default: "info")"""
    request_id_header: str
    """Header that carries the request id, such as X-Request-ID. An id from a trusted proxy is
    kept, otherwise a new one is made. Empty switches it off. (default: "")
    """
    request_id_echo: bool
    """Send the request id back in the response. (default: False)"""
    slow_request: float
    """Log a request, with the Python stack of its thread or task, if it runs for this long and
    its response has not begun. It is logged once, while it still runs; requests are checked
    once a second. 0 logs none. (seconds, default: 0.0)
    """
    metrics_bind: str | int | Sequence[str | int]
    """Address for /metrics (Prometheus), /healthz and /readyz, as for bind but without TLS. May
    be repeated. Empty switches metrics off. (default: ())
    """
    otlp_metrics: bool
    """Send the metrics of each process by OTLP to OTEL_EXPORTER_OTLP_ENDPOINT. Needs the extra
    otel. (default: False)
    """
    control: str
    """Unix socket, as unix:/PATH, through which `threadwell ctl` and `threadwell top` inspect
    and control the server. Only the user that runs the server, and root, can connect. Empty
    switches it off. (default: "")
    """
    limit_request_line: int | str
    """Maximum length of the request line. Beyond it the answer is 414. (bytes, default: 8190)"""
    limit_field_size: int | str
    """Maximum length of a header field line. Beyond it the answer is 431. (bytes, default: 8190)"""
    limit_fields: int
    """Maximum number of header field lines in a request. Beyond it the answer is 431. (default:
    100)
    """
    limit_head: int | str
    """Maximum size of a request head. Beyond it the answer is 431. (bytes, default: 65536)"""
    limit_chunk_line: int | str
    """Maximum length of a chunk-size line with its extensions. Beyond it the answer is 400.
    (bytes, default: 4096)
    """
    limit_chunk_extensions: int | str
    """Maximum size of all chunk extensions of one body together. Beyond it the answer is 400.
    (bytes, default: 16384)
    """
    limit_trailers: int | str
    """Maximum size of the trailer section of a chunked body. Beyond it the answer is 431.
    (bytes, default: 8192)
    """
    limit_body: int | str
    """Maximum size of a request body. Beyond it the answer is 413. (bytes, default: 268435456)"""
    memory_body: int | str
    """Maximum size of a request body that is kept in memory. A larger one goes to a temporary
    file. (bytes, default: 4194304)
    """
    memory_bodies: int | str
    """Maximum size of all request bodies in memory that are larger than 256 KiB, for each
    process. While it is used up, a body of more than 256 KiB goes to a temporary file.
    (bytes, default: 67108864)
    """
    limit_connections: int
    """Maximum number of open connections; 0 derives it from the file descriptor limit. At the
    limit idle connections are closed first, then new ones wait in the backlog. (default: 0)
    """
    handshake_timeout: float
    """Time for a TLS handshake. (seconds, default: 5.0)"""
    head_timeout: float
    """Time for a complete request head to arrive. Then the answer is 408. (seconds, default:
    10.0)
    """
    body_timeout: float
    """Time for a request body to arrive, plus one second for every `min_rate` bytes received.
    Then the answer is 408. (seconds, default: 30.0)
    """
    write_timeout: float
    """Time for the client to accept a response, plus one second for every `min_rate` bytes
    accepted. Then the connection is cut. (seconds, default: 30.0)
    """
    keep_alive: float
    """Time that an idle connection waits for its next request. (seconds, default: 75.0)"""
    linger_timeout: float
    """Time for the client to read a final response before the server cuts the connection.
    (seconds, default: 2.0)
    """
    graceful_timeout: float
    """Time for requests in flight to finish when the server stops. (seconds, default: 30.0)"""
    drain_idle: float
    """Time that idle connections stay open after SIGTERM, or in a worker that is replaced, for a
    request that is already on its way. Such a request is answered with Connection: close.
    (seconds, default: 2.0)
    """
    min_rate: int
    """Minimum transfer rate of request bodies and responses. Each this many bytes extend
    body_timeout or write_timeout by one second. (bytes per second, default: 500)
    """
