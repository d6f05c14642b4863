"""Worker processes: results, errors, a worker that dies, an end that does not wait."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from switchhook.media.workers import Workers, WorkersClosed


def double(number: int) -> int:
    return 2 * number


def complain() -> None:
    raise ValueError("no")


def die_once(mark: Path) -> str:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "second time"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_long() -> None:
    time.sleep(60)


def niceness() -> int:
    return os.nice(0)


async def test_a_job_gives_its_result_or_its_error_at_low_priority() -> None:
    workers = Workers(1)
    try:
        assert await workers.run(double, 21) == 42
        assert await workers.run(niceness) > os.nice(0)
        with pytest.raises(ValueError, match="no"):
            await workers.run(complain)
    finally:
        await workers.close()


async def test_a_job_whose_worker_died_is_run_once_more(tmp_path: Path) -> None:
    workers = Workers(1)
    try:
        assert await workers.run(die_once, tmp_path / "mark") == "second time"
        with pytest.raises(BrokenProcessPool):
            await workers.run(die)
        assert await workers.run(double, 4) == 8
    finally:
        await workers.close()


async def test_closing_does_not_wait_for_a_long_job() -> None:
    workers = Workers(1)
    await workers.run(double, 1)
    job = asyncio.ensure_future(workers.run(sleep_long))
    await asyncio.sleep(0)
    before = time.monotonic()
    await workers.close(grace_s=0.1)
    assert time.monotonic() - before < 30
    with pytest.raises(WorkersClosed):
        await job
    with pytest.raises(WorkersClosed):
        await workers.run(double, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_workers_die_with_a_server_that_is_killed() -> None:
    code = (
        "import asyncio, os, signal, sys\n"
        "from switchhook.media.workers import Workers\n"
        "async def main():\n"
        "    print(await Workers(1).run(os.getpid), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "if __name__ == '__main__':\n"
        "    asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    worker = int(done.stdout)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{worker}").exists() and "Z" not in Path(f"/proc/{worker}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline, "the worker outlived its server"
        time.sleep(0.01)
