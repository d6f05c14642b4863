"""`python -m bench`: run the scenarios, print the table, write the JSON."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
from pathlib import Path
from typing import Any

from bench.report import document, medians, missed, table, write
from bench.rig import RunFailedError, Settings
from bench.scenarios import SCENARIOS
from bench.server import MODULES, ServerFailedError

OUT = Path(__file__).resolve().parent / "out"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure a server with simulated calls.")
    parser.add_argument("--quick", action="store_true", help="20 calls, one talk cycle, few short calls: a check, no verdict")
    parser.add_argument("--calls", type=int, default=None, metavar="N", help="callers at a time (default 100)")
    parser.add_argument("--only", action="append", choices=sorted(SCENARIOS), help="run this scenario only; may be repeated")
    parser.add_argument("--repeat", type=int, default=1, metavar="K", help="run everything K times and take medians")
    parser.add_argument(
        "--server", choices=sorted(MODULES), default="switchhook", help="what to measure; standin gives the floor"
    )
    return parser.parse_args()


def settings(options: argparse.Namespace, log: Path) -> Settings:
    """How large the runs are."""
    if options.quick:
        calls = options.calls or 20
        return Settings(options.server, log, calls=calls, cycles=1, steps=(calls,), short_calls=40)
    return Settings(options.server, log, calls=options.calls or 100)


def run(name: str, chosen: Settings) -> dict[str, Any]:
    """One scenario, told on the terminal as it goes."""
    print(f"{name} …", flush=True)
    try:
        outcome = SCENARIOS[name](chosen)
    except (RunFailedError, ServerFailedError) as error:
        print(f"  failed: {error}")
        return {"scenario": name, "values": {}, "notes": [f"failed: {error}"], "failed": True}
    for note in outcome.notes:
        print(f"  {note}")
    return {"scenario": name, "values": outcome.values, "notes": outcome.notes, "failed": False}


def main() -> int:
    """Returns 0 when every figure is at least as good as it must be, 1 otherwise."""
    options = arguments()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that the server under test is ended too
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    chosen = settings(options, OUT / f"{name}.log")
    OUT.mkdir(exist_ok=True)
    server_core, load_cores = chosen.cores
    if load_cores == [server_core]:
        print("This machine has one core: the load disturbs the server, the figures are too high.")
    scenarios = options.only or list(SCENARIOS)
    runs = [run(scenario, chosen) for _ in range(options.repeat) for scenario in scenarios]
    values = medians([one["values"] for one in runs])
    print(f"\n{options.server}, {chosen.calls} calls, medians of {options.repeat}\n{table(values)}")
    about = {"server": options.server, "calls": chosen.calls, "repeat": options.repeat, "quick": options.quick}
    about |= {"python": platform.python_version(), "cpus": os.cpu_count(), "load_average": os.getloadavg()[0]}
    path = write(OUT, name, document(values, runs, about))
    print(f"\nwritten to {path}; the server's log is {chosen.log}")
    late = [note for one in runs for note in one["notes"] if "late (p99)" in note or "others took" in note]
    if late:
        print("DOUBTFUL: the machine was busy; run again when it is quiet.")
    return 1 if missed(values) or any(one["failed"] for one in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
