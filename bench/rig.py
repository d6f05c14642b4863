"""One set-up: stub, load and server as three processes, and the steps that every run is made of."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench import callers, streams, stub
from bench.cycle import CYCLE_S, SETTLE_S
from bench.figures import Figures, Window, evaluate, percentile
from bench.server import CALLED, Server, core_busy_s, running

ANSWER_TIMEOUT_S = 60
REPLY_TIMEOUT_S = 60
HANG_UP_TIMEOUT_S = 10
UNDER_WAY_S = 1.0
"""What was sent at the end of a stretch is given this long to arrive."""
LATE_LIMIT_MS = 5.0
NEIGHBOUR_LIMIT = 5.0
"""A run is doubtful when the load was later than this, or others took more per cent of the server's core than this."""


class RunFailedError(Exception):
    """The calls did not come up, or the other processes did not answer."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run: which server, where, how large and how long."""

    server: str
    log: Path
    """Where the server's output goes."""
    line: str = "sip"
    """How the callers come: `sip` or `twilio`."""
    calls: int = 100
    cycles: int = 3
    steps: tuple[int, ...] = (100, 250, 400)
    short_calls: int = 300

    @property
    def cores(self) -> tuple[int, list[int]]:
        """The server's core and those of the load; the same one when the machine has only one."""
        available = sorted(os.sched_getaffinity(0))
        return available[0], available[1:] or available


@dataclass(frozen=True, slots=True)
class Span:
    """What a stretch of a run cost, and what disturbed it."""

    window: Window
    cpu_s: float
    worker_cpu_s: float
    memory_mib: float
    neighbours: float
    """Per cent of the server's core that went to others or was stolen by the host."""


class Rig:
    """Three processes and the dialogue with them."""

    def __init__(self, server: Server, load: Connection, model: Connection, core: int) -> None:
        self.server = server
        self._load = load
        self._model = model
        self._core = core
        self._next = 0

    def dial(self, count: int, rate: float, hold_s: float | None = None) -> range:
        """Have so many callers dial so many a second; they talk until told, or are silent and hang up after `hold_s`."""
        numbers = range(self._next, self._next + count)
        self._next += count
        self._ask(self._load, {"do": "dial", "numbers": list(numbers), "rate": rate, "hold_s": hold_s})
        return numbers

    def hang_up(self, numbers: range) -> None:
        """Have callers hang up, all at once."""
        self._ask(self._load, {"do": "hangup", "numbers": list(numbers)})

    def set(self, **options: object) -> None:
        """Change what the stub backend answers."""
        self._ask(self._model, {"do": "set", "options": options})

    def state(self) -> dict[str, Any]:
        """How many calls are up, over, refused; how many the server dropped."""
        return self._ask(self._load, {"do": "state"})

    def until(self, condition: Callable[[dict[str, Any]], bool], what: str, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Wait until the callers' state fulfils a condition."""
        deadline = time.monotonic() + timeout_s
        while not condition(state := self.state()):
            self.server.check()
            if time.monotonic() > deadline:
                raise RunFailedError(f"{what} did not happen within {timeout_s:g} s; callers: {state}")
            time.sleep(0.1)

    def bring_up(self, count: int, rate: float) -> range:
        """Dial so many talkers and wait until every one of them talks."""
        already = self.state()["up"]
        numbers = self.dial(count, rate)
        self.until(lambda state: state["up"] - already >= count, f"answering {count} calls", count / rate + ANSWER_TIMEOUT_S)
        time.sleep(SETTLE_S + 0.5)
        return numbers

    def short_calls(self, count: int, rate: float, hold_s: float) -> None:
        """Place short calls and wait until the last is over."""
        already = self.state()["over"]
        self.dial(count, rate, hold_s)
        self.until(
            lambda state: state["over"] - already >= count, f"the end of {count} short calls", count / rate + ANSWER_TIMEOUT_S
        )

    def measure(self, seconds: float, numbers: range) -> Span:
        """Let the callers talk for so long and read what it cost."""
        start, cpu, workers = time.monotonic(), self.server.cpu_s(), self.server.worker_cpu_s()
        busy, stolen = core_busy_s(self._core)
        time.sleep(seconds)
        end = time.monotonic()
        self.server.check()
        cpu, workers = self.server.cpu_s() - cpu, self.server.worker_cpu_s() - workers
        busy_after, stolen_after = core_busy_s(self._core)
        others = max(0.0, busy_after - busy - cpu) + stolen_after - stolen
        window = Window(start, end, frozenset(numbers))
        return Span(window, cpu, workers, self.server.memory_mib(), 100 * others / (end - start))

    def finish(self) -> tuple[list[dict[str, Any]], dict[str, Any], float]:
        """Hang up, end the load and the stub; returns the callers' notes, the model's and the load's p99 lateness in ms."""
        time.sleep(UNDER_WAY_S)
        self.hang_up(range(self._next))
        with contextlib.suppress(RunFailedError):
            self.until(lambda state: state["up"] == 0, "hanging up", HANG_UP_TIMEOUT_S)
            time.sleep(UNDER_WAY_S)
        load = self._ask(self._load, {"do": "finish"})
        model = self._ask(self._model, {"do": "finish"})
        return load["callers"], model, percentile(load["late"], 99) * 1000 if len(load["late"]) else 0.0

    def _ask(self, pipe: Connection, message: dict[str, Any]) -> dict[str, Any]:
        pipe.send(message)
        if not pipe.poll(REPLY_TIMEOUT_S):
            raise RunFailedError(f"a process of the bench did not answer {message['do']!r}")
        return dict(pipe.recv())


@contextlib.contextmanager
def rig(settings: Settings, max_calls: int = 2_000, srtp: bool = False, **options: object) -> Iterator[Rig]:
    """Start the three processes; end them whatever happens. `options` change what the stub backend answers."""
    core, load_cores = settings.cores
    spawn = multiprocessing.get_context("spawn")
    model, model_end = spawn.Pipe()
    load, load_end = spawn.Pipe()
    model_process = spawn.Process(target=stub.main, args=(model_end, load_cores), daemon=True)
    model_process.start()
    try:
        if not model.poll(REPLY_TIMEOUT_S):
            raise RunFailedError("the stub model did not start")
        ports = model.recv()
        with running(settings.server, ports["http_port"], core, max_calls, settings.log, srtp) as server:
            load_process = _load_process(settings.line, load_end, server, load_cores, srtp)
            load_process.start()
            try:
                made = Rig(server, load, model, core)
                made.set(**options)
                yield made
            finally:
                _end(load_process)
    finally:
        _end(model_process)


def _load_process(
    line: str, pipe: Connection, server: Server, cores: list[int], srtp: bool
) -> multiprocessing.process.BaseProcess:
    spawn = multiprocessing.get_context("spawn")
    if line == "twilio":
        return spawn.Process(target=streams.main, args=(pipe, server.http, server.media, CALLED, cores), daemon=True)
    return spawn.Process(target=callers.main, args=(pipe, server.sip, CALLED, cores, srtp), daemon=True)


def _end(process: multiprocessing.process.BaseProcess) -> None:
    process.join(0.5)
    if process.is_alive():
        process.terminate()
        process.join()


def whole_cycles(settings: Settings) -> float:
    """The length of a measured stretch in seconds."""
    return settings.cycles * CYCLE_S


def doubts(span: Span, late_ms: float) -> list[str]:
    """Why a run should not be believed; empty when it may."""
    found = []
    if late_ms > LATE_LIMIT_MS:
        found.append(f"the load itself was {late_ms:.1f} ms late (p99)")
    if span.neighbours > NEIGHBOUR_LIMIT:
        found.append(f"others took {span.neighbours:.0f} % of the server's core")
    return found


def judged(span: Span, notes: tuple[list[dict[str, Any]], dict[str, Any], float]) -> tuple[Figures, list[str]]:
    """The figures of a stretch, and its doubts."""
    return evaluate(notes[0], notes[1], span.window), doubts(span, notes[2])
