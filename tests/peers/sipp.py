"""sipp as caller or answerer: scenarios in the folder `sipp`, one process a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.peers.ports import free_port, free_row
from tests.peers.processes import Finished, PeerProcess

SCENARIOS = Path(__file__).parent / "sipp"


@dataclass(frozen=True)
class SippRun:
    """One run of a scenario against `remote` (host, port)."""

    scenario: str
    """File name in `tests/peers/sipp` without `.xml`."""
    remote: tuple[str, int]
    folder: Path
    service: str = "+17205550100"
    calls: int = 1
    rate: int = 10
    at_once: int = 10
    transport: str = "u1"
    """sipp's own word: `u1`, `t1`."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Values for `[name]` in the scenario."""
    extra: Sequence[str] = ()
    timeout_s: int = 20
    host: str = "127.0.0.1"
    """sipp's own address."""

    def process(self) -> PeerProcess:
        """The process, not yet started."""
        command = [
            *("sipp", "-sf", str(SCENARIOS / f"{self.scenario}.xml"), "-s", self.service, f"{self.remote[0]}:{self.remote[1]}"),
            *("-i", self.host, "-mi", self.host, "-p", str(free_port()), "-mp", str(free_row(4))),
            *("-m", str(self.calls), "-r", str(self.rate), "-l", str(self.at_once), "-t", self.transport),
            *("-nostdin", "-timeout", str(self.timeout_s), "-timeout_error", "-trace_err", "-trace_msg"),
            *(word for name, value in self.keys.items() for word in ("-key", name, value)),
            *self.extra,
        ]
        return PeerProcess(command, self.folder)


async def run(sipp: SippRun) -> Finished:
    """Run a scenario to its end. sipp's exit code 0 means that every call was good."""
    async with sipp.process() as process:
        finished = await process.finished(sipp.timeout_s + 5)
    return Finished(finished.returncode, finished.output + messages(sipp.folder))


def messages(folder: Path) -> str:
    """What sipp complained of, and the end of its message log, for a failing assertion."""
    texts = [path.read_text(errors="replace")[-3000:] for path in sorted(folder.glob("*_errors.log"))]
    texts += [path.read_text(errors="replace")[-6000:] for path in sorted(folder.glob("*_messages.log"))]
    return "\n".join(texts)
