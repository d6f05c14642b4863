"""The server under test: a child process on one core, its cost read from /proc, its whole life bounded."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from bench.streams import ACCOUNT_SID, AUTH_TOKEN, PUBLIC_MEDIA_URL, PUBLIC_URL

CALLED = "+17206999999"
RTP_PORTS = "20000-29999"
READY_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
MODULES = {"switchhook": ["switchhook", "serve"], "standin": ["bench.standin"]}


class ServerFailedError(Exception):
    """The server did not come up, or died."""


def free_port(kind: int = socket.SOCK_STREAM, neighbours: int = 1) -> int:
    """A free port on loopback with so many free ports in a row."""
    for _ in range(50):
        with socket.socket(socket.AF_INET, kind) as first:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            # SIP listens on UDP and TCP alike.
            other = socket.SOCK_STREAM if kind == socket.SOCK_DGRAM else socket.SOCK_DGRAM
            if _is_free(port, other) and all(_is_free(port + offset, kind) for offset in range(1, neighbours)):
                return port
    raise ServerFailedError("no free ports on loopback")


def _is_free(port: int, kind: int) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def apply_file(backend_port: int, srtp: bool) -> str:
    """The declarative set-up: one account, one open trunk, one VNS number whose webhooks are the stub's."""
    hooks = {
        name: {"url": f"http://127.0.0.1:{backend_port}/{path}", "headers": {"Token": "bench"}} for name, path in HOOKS.items()
    }
    trunk: dict[str, object] = {"name": "local", "account": "bench", "address": "sip:127.0.0.1:9", "allow_from": ["127.0.0.0/8"]}
    trunk |= {"username": None, "password": None, "register": False} | ({"srtp": "required"} if srtp else {})
    number = {"number": CALLED, "account": "bench", "contract": "vns", **hooks, "fallback": {"number": None, "message": None}}
    twilio = {"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, "rest_base_url": "http://127.0.0.1:9"}
    account = {"name": "bench", "tokens": [{"name": "main", "value": "bench-token"}], "twilio": twilio}
    return yaml.safe_dump({"accounts": [account], "trunks": [trunk], "numbers": [number]})


HOOKS = {"call_start": "callstart", "call_end": "callend"}


@dataclass(slots=True)
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    sip: tuple[str, int]
    http: tuple[str, int]
    media: tuple[str, int]
    """Where Media Streams are opened."""
    log: Path
    lines: queue.Queue[str] = field(default_factory=queue.Queue)
    reader: threading.Thread | None = None

    def cpu_s(self) -> float:
        """User and system seconds of the process and all it has started, the ended ones included."""
        return sum(_cpu_s(pid, 4) for pid in family(self.process.pid))

    def worker_cpu_s(self) -> float:
        """The same without the server's own process."""
        return self.cpu_s() - _cpu_s(self.process.pid, 2)

    def memory_mib(self) -> float:
        """Resident MiB of the server's own process, without its workers."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def check(self) -> None:
        """Raise when the process has died."""
        if self.process.poll() is not None:
            raise ServerFailedError(f"the server ended with {self.process.returncode}:\n{tail(self.log)}")


def family(pid: int) -> list[int]:
    """A process and its descendants, the process itself first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for member in found:
        found.extend(children.get(member, []))
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the program's name; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_s(pid: int, fields: int) -> float:
    """The first two fields are a process's own user and system time, the next two that of its children that have ended."""
    stat = _stat(pid)
    return sum(map(int, stat[11 : 11 + fields])) * TICK_S if stat else 0.0


def core_busy_s(core: int) -> tuple[float, float]:
    """Seconds that a core has worked, for whomever, and that the host has stolen from it."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _, _, irq, softirq, steal = map(int, ticks[:8])
            return (user + nice + system + irq + softirq) * TICK_S, steal * TICK_S
    return 0.0, 0.0


def tail(log: Path, lines: int = 30) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


@contextmanager
def running(kind: str, backend_port: int, core: int, max_calls: int, log: Path, srtp: bool = False) -> Iterator[Server]:
    """Start a server of a kind (`switchhook` or `standin`) on one core and stop it at the end."""
    http = free_port(neighbours=2)
    sip = free_port(socket.SOCK_DGRAM)
    with tempfile.TemporaryDirectory(prefix="switchhook-bench-") as folder:
        setup = Path(folder) / "apply.yaml"
        setup.write_text(apply_file(backend_port, srtp))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHHOOK_")}
        environment |= {
            "SWITCHHOOK_HTTP_HOST": "127.0.0.1",
            "SWITCHHOOK_HTTP_PORT": str(http),
            "SWITCHHOOK_PUBLIC_URL": PUBLIC_URL,
            "SWITCHHOOK_PUBLIC_MEDIA_URL": PUBLIC_MEDIA_URL,
            "SWITCHHOOK_SIP_HOST": "127.0.0.1",
            "SWITCHHOOK_SIP_PORT": str(sip),
            "SWITCHHOOK_RTP_PORTS": RTP_PORTS,
            "SWITCHHOOK_DATA_DIR": folder,
            "SWITCHHOOK_EGRESS_ALLOW": "127.0.0.0/8",
            "SWITCHHOOK_MAX_CALLS": str(max_calls),
        }
        command = [sys.executable, "-m", *MODULES[kind], "--apply", str(setup)]
        mine = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})  # the child inherits the core, its later processes too
        try:
            with log.open("ab") as errors:
                process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors)
        finally:
            os.sched_setaffinity(0, mine)
        server = Server(process, ("127.0.0.1", sip), ("127.0.0.1", http), ("127.0.0.1", http + 1), log)
        try:
            _await_ready(server)
            yield server
        finally:
            _stop(server)


def _await_ready(server: Server) -> None:
    """Wait for the ready line; later lines go to the log, so that a full pipe never stops the server."""

    def read() -> None:
        with server.log.open("a") as log:
            for line in server.process.stdout or ():
                text = line.decode(errors="replace")
                log.write(text)
                log.flush()
                server.lines.put(text)

    server.reader = threading.Thread(target=read, daemon=True)
    server.reader.start()
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        server.check()
        try:
            if "ready" in server.lines.get(timeout=0.2).lower():
                return
        except queue.Empty:
            continue
    raise ServerFailedError(f"the server was not ready within {READY_TIMEOUT_S} s:\n{tail(server.log)}")


def _stop(server: Server) -> None:
    """SIGTERM, then SIGKILL; its pipe is closed once the last line is read."""
    process = server.process
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if server.reader is not None:
        server.reader.join(STOP_TIMEOUT_S)
        if not server.reader.is_alive() and process.stdout is not None:
            process.stdout.close()
