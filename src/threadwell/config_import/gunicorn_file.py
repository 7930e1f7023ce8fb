"""Reads a `gunicorn.conf.py` without executing it."""

from __future__ import annotations

import ast
import operator
import os
import re
from typing import TYPE_CHECKING, Any

from ..worker import ConfigError
from .given import Given, Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Settings whose flag has another name. Any other is spelled as its flag.
_FLAGS = {
    "accesslog": "--access-logfile",
    "access_log_format": "--access-logformat",
    "errorlog": "--error-logfile",
    "loglevel": "--log-level",
    "logconfig": "--log-config",
    "logconfig_dict": "--log-config",
    "logconfig_json": "--log-config-json",
    "pidfile": "--pid",
    "keepalive": "--keep-alive",
    "preload_app": "--preload",
    "proc_name": "--name",
    "raw_env": "--env",
    "raw_paste_global_conf": "--paste-global",
    "syslog": "--log-syslog",
    "syslog_addr": "--log-syslog-to",
    "syslog_prefix": "--log-syslog-prefix",
    "syslog_facility": "--log-syslog-facility",
    "proxy_allow_ips": "--proxy-allow-from",
    "limit_request_field_size": "--limit-request-field_size",
    "reload_extra_files": "--reload-extra-file",
    "wsgi_app": "",
}
_NAMES = """
    backlog bind ca_certs capture_output cert_reqs certfile chdir check_config ciphers daemon
    do_handshake_on_connect dogstatsd_tags enable_stdio_inheritance forwarded_allow_ips
    forwarder_headers graceful_timeout group header_map http2_max_concurrent_streams initgroups
    keyfile limit_request_fields limit_request_line logger_class max_requests max_requests_jitter
    paste permit_obsolete_folding permit_unconventional_http_method print_config proxy_protocol
    pythonpath reload reload_engine reuse_port root_path spew ssl_version statsd_host statsd_prefix
    strip_header_spaces suppress_ragged_eofs threads timeout umask user worker_class
    worker_connections worker_tmp_dir workers casefold_http_method control_socket
    disable_redirect_access_to_syslog permit_unconventional_http_version
""".split()
# Settings without a flag.
_WITHOUT_FLAG = {
    "sendfile": "sendfile is used where a file is sent",
    "tmp_upload_dir": "the variable TMPDIR names the folder of large bodies",
    "secure_scheme_headers": "a proxy in trusted_proxies sends X-Forwarded-Proto",
    "default_proc_name": "with threadwell[titles] the application names processes",
}
_INSIDE_WORKER = "call it where the application is imported: each worker imports it"
# The hooks, and what to use instead.
HOOKS = {
    "on_starting": "run it before the server, such as in ExecStartPre= of systemd",
    "on_reload": "SIGHUP starts new workers, which import the application again",
    "when_ready": "systemd is notified, and /readyz of metrics_bind tells it",
    "pre_fork": _INSIDE_WORKER,
    "post_fork": _INSIDE_WORKER,
    "post_worker_init": _INSIDE_WORKER,
    "worker_int": "`threadwell ctl PATH stacks` prints what the threads do",
    "worker_abort": "a worker that hangs is logged with its stacks and replaced",
    "pre_exec": "there is no second master; SIGHUP reloads",
    "pre_request": "use middleware of the framework",
    "post_request": "use middleware of the framework, or the access log",
    "child_exit": "the exit of each worker is logged and counted",
    "worker_exit": "use atexit in the application",
    "nworkers_changed": "`threadwell ctl PATH status` tells the number of workers",
    "on_exit": "run it after the server, such as in ExecStopPost= of systemd",
    "ssl_context": "serve(app, ssl_context=...) takes one in Python",
}
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_CALLS: dict[str, Callable[..., Any]] = {
    "int": int, "float": float, "str": str, "bool": bool, "min": min, "max": max,
}  # fmt: skip
_CORES = ("multiprocessing.cpu_count", "os.cpu_count", "cpu_count", "os.process_cpu_count")
_VARIABLES = ("os.environ.get", "os.getenv", "environ.get", "getenv")
_MOST_OF_A_SEQUENCE = 10_000


class _NotLiteral(Exception):
    """The value of an expression is known only when it runs."""


def read_gunicorn_file(path: Path, text: str) -> Source:
    """The settings of the file `path`, whose content is `text`. Raises `ConfigError`."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ConfigError(f"{path}:{error.lineno}: it is not Python: {error.msg}") from None
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: it is not Python: {error}") from None
    reader = _Reader(path.name, text)
    for node in tree.body:
        reader.read(node)
    if not reader.source.settings and not reader.source.not_taken:
        raise ConfigError(f"{path}: it has no setting of gunicorn")
    return reader.source


class _Reader:
    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text
        self._values: dict[str, Any] = {}
        self._notes: list[str] = []
        self._variables: list[str] = []
        self._has_cores = False
        self.source = Source("gunicorn")

    def read(self, node: ast.stmt) -> None:
        """Take the setting of a statement at the top of the file."""
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self._assign(name, value, node)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                self._assign(name, value, node)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if name in HOOKS:
                    given = self._given(name, None, node)._replace(text=f"def {name}(...)")
                    self.source.not_taken.append((given, HOOKS[name]))
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()) | ast.ClassDef():
                pass
            case _:
                self._list_inner(node)

    def _list_inner(self, node: ast.stmt) -> None:
        """List the settings within a statement that is executed, such as `if`."""
        for inner in ast.walk(node):
            targets: list[ast.expr] = []
            if isinstance(inner, ast.Assign):
                targets = inner.targets
            elif isinstance(inner, (ast.AugAssign, ast.AnnAssign)):
                targets = [inner.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    self._values.pop(target.id, None)
                    if _is_setting(target.id):
                        given = self._given(target.id, None, inner)
                        why = "it depends on code, which is not executed"
                        self.source.not_taken.append((given, why))

    def _assign(self, name: str, value: ast.expr, node: ast.stmt) -> None:
        self._notes, self._variables, self._has_cores = [], [], False
        try:
            found = self._value(value)
        except (_NotLiteral, ArithmeticError, TypeError, ValueError, KeyError) as error:
            self._values.pop(name, None)
            if _is_setting(name):
                why = str(error) if isinstance(error, _NotLiteral) else ""
                why = why or "its value is known only when the file is executed"
                self.source.not_taken.append((self._given(name, None, node), why))
            return
        self._values[name] = found
        if not _is_setting(name):
            return
        given = self._given(name, found, node)
        if name in _WITHOUT_FLAG:
            self.source.not_taken.append((given, _WITHOUT_FLAG[name]))
            return
        if found is None:
            return  # the default
        if name == "workers" and self._has_cores:
            given = given._replace(value="auto")
            self._notes = ["auto starts one worker for each core, each with its threads"]
        elif self._has_cores:
            self._notes.append(f"computed for the {_cores()} cores of this machine")
        note, variables = "; ".join(self._notes), tuple(self._variables)
        self.source.settings.append(given._replace(note=note, variables=variables))

    def _given(self, name: str, value: Any, node: ast.AST) -> Given:
        lines = (ast.get_source_segment(self._text, node) or name).split("\n")
        text = lines[0] + (" ..." if len(lines) > 1 else "")
        flag = _FLAGS.get(name, "--" + name.replace("_", "-"))
        return Given(flag, value, f"{self._name}:{getattr(node, 'lineno', 1)}", text)

    # ---- Expressions ----------------------------------------------------------------------

    def _value(self, node: ast.expr) -> Any:
        """The value of an expression that needs no code of the file. Raises `_NotLiteral`."""
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name) if name in self._values:
                return self._values[name]
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [self._value(item) for item in items]
            case ast.Dict(keys=keys, values=values):
                return {self._key(k): self._value(v) for k, v in zip(keys, values, strict=True)}
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._value(operand)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self._value(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return self._operation(op, self._value(left), self._value(right))
            case ast.BoolOp(op=ast.Or(), values=values):
                return next((v for v in map(self._value, values) if v), None)
            case ast.JoinedStr(values=parts):
                return "".join(str(self._value(part)) for part in parts)
            case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
                return self._value(value)
            case ast.Call(func=function, args=args, keywords=[]):
                return self._call(ast.unparse(function), args)
            case ast.Subscript(value=value, slice=ast.Constant(value=str() as variable)):
                if ast.unparse(value) in ("os.environ", "environ"):
                    raise _NotLiteral(f"it is the variable {variable}, which has no default")
        raise _NotLiteral

    def _key(self, node: ast.expr | None) -> Any:
        if node is None:
            raise _NotLiteral
        return self._value(node)

    def _operation(self, op: ast.operator, left: Any, right: Any) -> Any:
        sizes = [n for n in (left, right) if isinstance(n, int)]
        sequences = [len(s) for s in (left, right) if isinstance(s, (str, bytes, list))]
        is_repeated = isinstance(op, ast.Mult) and sizes and sequences
        if is_repeated and sizes[0] * sequences[0] > _MOST_OF_A_SEQUENCE:
            raise _NotLiteral
        if isinstance(op, ast.Mod) and re.search(r"%[^%a-zA-Z]*(\*|[0-9]{4})", str(left)):
            raise _NotLiteral  # a width may be of any size
        return _OPERATORS[type(op)](left, right)

    def _call(self, function: str, args: list[ast.expr]) -> Any:
        if function in _CORES and not args:
            self._has_cores = True
            return _cores()
        if function in _VARIABLES and args:
            variable, *default = [self._value(arg) for arg in args]
            if not default:
                raise _NotLiteral(f"it is the variable {variable}, which has no default")
            self._variables.append(str(variable))
            self._notes.append(f"the default of the variable {variable}, which is not read")
            return default[0]
        if function in _CALLS and args:
            return _CALLS[function](*map(self._value, args))
        if function in ("os.path.join", "path.join") and args:
            return os.path.join(*map(self._value, args))
        raise _NotLiteral


def _is_setting(name: str) -> bool:
    return name in _FLAGS or name in _NAMES or name in _WITHOUT_FLAG or name in HOOKS


def _cores() -> int:
    return os.cpu_count() or 1
