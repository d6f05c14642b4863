"""`python -m bench`: run the scenarios, print the table, write the JSON."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.report import against_floor, document, medians, missed, table, write
from bench.rig import RunFailedError, Settings
from bench.scenarios import LINES, SCENARIOS
from bench.server import MODULES, ServerFailedError

OUT = Path(__file__).resolve().parent / "out"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure a server with simulated calls.")
    parser.add_argument("--quick", action="store_true", help="20 calls, one talk cycle, few short calls: a check, no verdict")
    parser.add_argument("--calls", type=int, default=None, metavar="N", help="callers at a time (default 100)")
    parser.add_argument("--only", action="append", choices=sorted(SCENARIOS), help="run this scenario only; may be repeated")
    parser.add_argument(
        "--line", action="append", choices=sorted(LINES), help="how the callers come (default: both, side by side)"
    )
    parser.add_argument("--repeat", type=int, default=1, metavar="K", help="run everything K times and take medians")
    parser.add_argument(
        "--server", choices=sorted(MODULES), default="switchhook", help="what to measure; standin gives the floor"
    )
    return parser.parse_args()


def settings(options: argparse.Namespace, log: Path, line: str) -> Settings:
    """How large the runs are."""
    if options.quick:
        calls = options.calls or 20
        return Settings(options.server, log, line, calls=calls, cycles=1, steps=(calls,), short_calls=40)
    return Settings(options.server, log, line, calls=options.calls or 100)


def run(name: str, chosen: Settings) -> dict[str, Any]:
    """One scenario, told on the terminal as it goes."""
    print(f"{chosen.line}: {name} …", flush=True)
    try:
        outcome = SCENARIOS[name](chosen)
    except (RunFailedError, ServerFailedError) as error:
        print(f"  failed: {error}")
        return {"line": chosen.line, "scenario": name, "values": {}, "notes": [f"failed: {error}"], "failed": True}
    for note in outcome.notes:
        print(f"  {note}")
    return {"line": chosen.line, "scenario": name, "values": outcome.values, "notes": outcome.notes, "failed": False}


def main() -> int:
    """Returns 0 when every figure is at least as good as it must be, 1 otherwise."""
    options = arguments()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that the server under test is ended too
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    lines = list(dict.fromkeys(options.line or (["sip"] if options.server == "standin" else LINES)))
    if options.server == "standin" and "twilio" in lines:
        print("The stand-in speaks SIP alone: leave --line twilio out.")
        return 2
    chosen = settings(options, OUT / f"{name}.log", lines[0])
    OUT.mkdir(exist_ok=True)
    server_core, load_cores = chosen.cores
    if load_cores == [server_core]:
        print("This machine has one core: the load disturbs the server, the figures are too high.")
    scenarios = options.only or [name for name in SCENARIOS if options.server != "standin" or name != "floor"]
    runs = [
        run(scenario, replace(chosen, line=line))
        for _ in range(options.repeat)
        for scenario in scenarios
        for line in lines
        if scenario in LINES[line]
    ]
    values = {line: against_floor(medians([one["values"] for one in runs if one["line"] == line])) for line in lines}
    print(f"\n{options.server}, {chosen.calls} calls, medians of {options.repeat}\n{table(values)}")
    about = {"server": options.server, "calls": chosen.calls, "repeat": options.repeat, "quick": options.quick}
    about |= {"python": platform.python_version(), "cpus": os.cpu_count(), "load_average": os.getloadavg()[0]}
    path = write(OUT, name, document(values, runs, about))
    print(f"\nwritten to {path}; the server's log is {chosen.log}")
    late = [note for one in runs for note in one["notes"] if "late (p99)" in note or "others took" in note]
    if late:
        print("DOUBTFUL: the machine was busy; run again when it is quiet.")
    return 1 if any(missed(values[line], line) for line in lines) or any(one["failed"] for one in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
