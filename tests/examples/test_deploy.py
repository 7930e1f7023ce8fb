"""The files of examples/deploy: accepted by the programs they are for, and put to work."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from threadwell import ServerConfig

from ..helpers.metrics import fetch, metrics_url
from ..helpers.supervised import Load, Supervised, receive
from ..helpers.waiting import until

# Seconds that the supervisor gives to what is over its time, and then to be killed.
CUT = 7

FOLDER = Path(__file__).parent.parent.parent / "examples" / "deploy"

APP = """
import os, time
def app(environ, start_response):
    time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"by {os.getpid()} for {environ['REMOTE_ADDR']}".encode()]
"""


def program(name: str) -> str:
    """The path of a program; some are where only root looks."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


MONITORING = FOLDER / "monitoring"
_METRIC = re.compile(r"\bthreadwell_[a-z_]+")


def test_the_rules_are_those_of_prometheus() -> None:
    promtool = program("promtool")
    for command in (["rules", "alerts.yml"], ["config", "prometheus.yml"]):
        arguments = [promtool, "check", *command]
        done = subprocess.run(
            arguments, cwd=MONITORING, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["alerts.yml", "dashboard.json"])
def test_each_metric_of_the_pictures_exists(tmp_path: Path, name: str) -> None:
    (tmp_path / "app.py").write_text(APP)
    arguments = ["app:app", "--bind", "127.0.0.1:0", "--metrics-bind", "127.0.0.1:0"]
    server = Supervised(tmp_path, *arguments, "--workers", "2")
    try:
        server.get()
        _, text = fetch(metrics_url(server))
        assert server.end() == 0
    finally:
        server.close()
    exist = {line.partition("{")[0].split(" ")[0] for line in text.splitlines()}
    named = set(_METRIC.findall((MONITORING / name).read_text("utf-8")))
    assert len(named) > 8
    assert named <= exist


def test_the_dashboard_has_what_grafana_asks_for() -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text("utf-8"))
    assert {"title", "uid", "schemaVersion", "templating", "panels"} <= set(dashboard)
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert panel["description"]
        for target in panel["targets"]:
            assert target["expr"].count("(") == target["expr"].count(")")
            assert target["legendFormat"]


# Each process that runs tests has ports of its own.
_WIDTH = 700
_FIRST = 20000 + _WIDTH * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
_PORTS = random.sample(range(_FIRST, _FIRST + _WIDTH), _WIDTH)


def free_port() -> int:
    """A port that nothing has, and that no outgoing connection will be given meanwhile."""
    while True:
        port = _PORTS.pop()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def run(*command: str | Path) -> str:
    """What a program that succeeds has said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


# ---- Balancers ----------------------------------------------------------------------------


class Balancer:
    """HAProxy or nginx with a file of the examples, in which the addresses are other ones."""

    def __init__(self, name: str, folder: Path) -> None:
        self.port = free_port()
        self.ports = [free_port(), free_port()]
        self.probes = [free_port(), free_port()]
        self.name = name
        self._source = FOLDER / ("haproxy" if name.endswith("cfg") else "nginx") / name
        self._file = folder / name
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        text = self._source.read_text()
        text = re.sub(r"0\.0\.0\.0:\d+|(?<=listen )80(?=;)", f"127.0.0.1:{self.port}", text)
        others = dict(zip("8001 8002 9101 9102".split(), (*self.ports, *self.probes), strict=True))
        text = re.sub(rf"\b({'|'.join(others)})\b", lambda match: str(others[match[1]]), text)
        text = text.replace("/run/app/", f"{folder}/").replace("/run/nginx.pid", f"{folder}/pid")
        # what only root may write
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
            directive = f"{kind}_temp_path {folder}/{kind};"
            text = text.replace("access_log off;", f"access_log off; {directive}")
        self._file.write_text(text)

    def command(self, *options: str) -> list[str]:
        if self._file.suffix == ".cfg":
            return [program("haproxy"), "-q", *options, "-f", str(self._file)]
        user = "user root; " if os.geteuid() == 0 else ""
        main = ["-g", f"{user}daemon off;", "-e", str(self._folder / "error.log")]
        return [program("nginx"), "-q", *options, *main, "-c", str(self._file)]

    def check(self) -> None:
        """Whether the program takes its file."""
        run(*self.command("-c" if self._file.suffix == ".cfg" else "-t"))

    def start(self) -> None:
        foreground = ["-db"] if self._file.suffix == ".cfg" else []
        self._process = subprocess.Popen(self.command(*foreground), stderr=subprocess.DEVNULL)
        until(self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "it has ended"
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                return receive(client)[0].startswith(b"HTTP/1.1 200 ")
        except OSError:
            return False

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def replica(self, number: int) -> list[str]:
        """The arguments that say where a replica is to be reached."""
        if self.name.startswith("unix"):
            path = f"{self._folder}/{('one', 'two')[number]}.sock"
            return ["--bind", f"unix:{path}", "--trusted-proxies", "unix"]
        return [
            *("--bind", f"127.0.0.1:{self.ports[number]}", "--trusted-proxies", "127.0.0.1"),
            *("--metrics-bind", f"127.0.0.1:{self.probes[number]}"),
            *(["--proxy-protocol"] if self.name.startswith("proxy") else []),
        ]


FILES = ["haproxy.cfg", "unix.cfg", "proxy-protocol.cfg", "nginx.conf", "unix.conf"]


@pytest.mark.parametrize("name", FILES)
def test_a_balancer_takes_its_file(tmp_path: Path, name: str) -> None:
    Balancer(name, tmp_path).check()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    (tmp_path / "app.py").write_text(APP)
    with ExitStack() as stack:

        def run(*arguments: str, **options: Any) -> Supervised:
            server = Supervised(tmp_path, "app:app", *arguments, **options)
            stack.callback(server.close)
            return server

        yield run


@pytest.mark.parametrize("name", ["haproxy.cfg", "unix.cfg", "nginx.conf"])
def test_a_rolling_restart_loses_no_request(
    start: Callable[..., Supervised], tmp_path: Path, name: str
) -> None:
    balancer = Balancer(name, tmp_path)
    balancer.check()
    replicas = [start(*balancer.replica(number), "--workers", "2") for number in range(2)]
    with ExitStack() as stack:
        stack.callback(balancer.close)
        balancer.start()
        load = stack.enter_context(Load(balancer.port))
        for number in range(2):
            # both are in use before one of them goes
            for replica in replicas:
                workers = replica.ready_workers()
                until(lambda workers=workers: not load.pids.isdisjoint(workers))
            assert replicas[number].end() == 0
            replicas[number] = start(*balancer.replica(number), "--workers", "2")
        load.more(200)
    assert load.failures == []


@pytest.mark.parametrize("name", FILES)
def test_the_client_is_known_behind_a_balancer(
    start: Callable[..., Supervised], tmp_path: Path, name: str
) -> None:
    """By one of two replicas, the other is not there; and whatever the client says of itself."""
    balancer = Balancer(name, tmp_path)
    start(*balancer.replica(0))
    with ExitStack() as stack:
        stack.callback(balancer.close)
        balancer.start()
        place = ("127.0.0.1", balancer.port)
        client = socket.create_connection(place, 20, source_address=("127.0.0.2", 0))
        with client:
            client.sendall(
                b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\n"
                b"Forwarded: for=192.0.2.1\r\n\r\n"
            )
            assert receive(client)[1].endswith(b" for 127.0.0.2")


# ---- systemd ------------------------------------------------------------------------------


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    analyze = program("systemd-analyze")
    command = f"{sys.executable} -m threadwell"
    for name in ("app.service", "app.socket"):
        text = (FOLDER / "systemd" / name).read_text()
        text = text.replace("/srv/app/.venv/bin/threadwell", command)
        (tmp_path / name).write_text(text)
    units = [tmp_path / "app.service", tmp_path / "app.socket"]
    said = run(analyze, "verify", "--man=no", *units)
    # of units that are not these it may complain, as it likes
    assert not [line for line in said.splitlines() if "app." in line]


def test_the_service_gives_the_server_its_time() -> None:
    text = (FOLDER / "systemd" / "app.service").read_text()
    settings = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    config = ServerConfig()
    assert int(settings["TimeoutStartSec"]) > config.processes.start_timeout
    assert int(settings["TimeoutStopSec"]) >= config.timeouts.graceful + CUT
    assert (settings["Type"], settings["KillMode"]) == ("notify", "mixed")
    assert "$MAINPID" in settings["ExecReload"]


# ---- Docker -------------------------------------------------------------------------------


def instruction(name: str) -> str:
    """The last instruction of this name, in one line."""
    text = (FOLDER / "Dockerfile").read_text().replace("\\\n", " ")
    return re.findall(rf"^{name} +(.*)$", text, re.MULTILINE)[-1]


def test_what_the_container_runs() -> None:
    """Its command, its probe and its signal, in this environment."""
    command = [*json.loads(instruction("ENTRYPOINT")), *json.loads(instruction("CMD"))]
    assert command[0] == "threadwell", "no shell between"
    ports = {port: str(free_port()) for port in instruction("EXPOSE").split()}
    assert len(ports) == 2

    def here(text: str) -> str:
        for port, other in ports.items():
            text = text.replace(f":{port}", f":{other}")
        return text.replace("0.0.0.0", "127.0.0.1")

    server = Supervised(FOLDER, *map(here, command[1:]))
    try:
        assert server.get().startswith("Hello from process ")
        probe = json.loads(instruction("HEALTHCHECK").partition("CMD ")[2])
        assert probe[0] == "python"
        run(sys.executable, *map(here, probe[1:]))
        assert instruction("STOPSIGNAL") == "SIGTERM"
        assert server.end() == 0
        logged = [json.loads(line) for line in server.lines if line.startswith("{")]
        assert len(logged) == 1
    finally:
        server.close()


def test_the_container_is_not_root_and_has_what_it_needs() -> None:
    assert int(instruction("USER")) > 0
    text = (FOLDER / "Dockerfile").read_text()
    kept = re.findall(r"^!(.*)$", (FOLDER / ".dockerignore").read_text(), re.MULTILINE)
    copied = copied_by(text)
    assert all((FOLDER / name).exists() for name in copied)
    assert re.search(r"^RUN .*/pip install threadwell -r requirements.txt$", text, re.MULTILINE)
    # with the lines for a checkout in the place of their neighbours
    checkout = re.sub(r"^# (?=COPY|RUN)", "", text, flags=re.MULTILINE)
    assert sorted(set(copied_by(checkout))) == sorted(kept)
    assert "pip install -r requirements.txt ./threadwell-*.whl" in checkout


def copied_by(text: str) -> list[str]:
    """What a Dockerfile copies from its folder."""
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    return " ".join(lines).split()


# ---- Kubernetes ---------------------------------------------------------------------------


def manifest(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / "kubernetes" / f"{name}.yaml").read_text())
    return loaded


def test_the_manifests_fit_together() -> None:
    deployment = manifest("deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert manifest("service")["spec"]["selector"].items() <= labels.items()
    budget, scaler = manifest("disruption"), manifest("autoscaler")
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"], target["apiVersion"]) == (
        deployment["kind"],
        deployment["metadata"]["name"],
        deployment["apiVersion"],
    )
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert scaler["spec"]["minReplicas"] > budget["spec"]["maxUnavailable"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    names = {port["name"] for port in container["ports"]}
    (port,) = manifest("service")["spec"]["ports"]
    assert {port["targetPort"], "metrics"} == names
    for probe, path in (("startup", "/readyz"), ("readiness", "/readyz"), ("liveness", "/healthz")):
        asked = container[f"{probe}Probe"]["httpGet"]
        assert (asked["path"], asked["port"]) == (path, "metrics")


def test_the_pod_gives_the_server_its_time() -> None:
    spec = manifest("deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    config = ServerConfig.from_options(**arguments_of(container["args"]))
    wait = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    needed = wait + config.timeouts.graceful + CUT
    assert spec["terminationGracePeriodSeconds"] >= needed
    assert config.timeouts.drain_idle <= config.timeouts.graceful
    # it is out of the list of endpoints before it closes its listener
    ready = container["readinessProbe"]
    assert wait > ready["periodSeconds"] * ready["failureThreshold"]
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > config.processes.start_timeout
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert config.bind.addresses == (f"0.0.0.0:{ports['http']}",)
    assert config.metrics.bind == (f"0.0.0.0:{ports['metrics']}",)


def arguments_of(args: list[str]) -> dict[str, Any]:
    """What the command makes of its options."""
    given = [arg.removeprefix("--").partition("=") for arg in args]
    return {name.replace("-", "_"): value for name, _, value in given}
