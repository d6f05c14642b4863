"""`switchhook demo`: a server, a backend and a caller, one real call over loopback, and a check of everything it left behind."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from pathlib import Path
from typing import Any

from switchhook_demo.backend import Backend, agent_for
from switchhook_demo.caller import SCRIPT, CallerFailedError, Told, converse
from switchhook_demo.phone import CallRefusedError, Phone
from switchhook_demo.server_child import ServerChild, ServerFailedError
from switchhook_demo.show import RecordingFacts, Screen, read_recording, softphone_help

CALL_TIMEOUT_S = 90
CALL_END_TIMEOUT_S = 20
RECORDING_TIMEOUT_S = 20
SIP_PORT = 5060


class DemoFailedError(Exception):
    """A step of the demo failed; the message names it."""


def run(keep: bool = False, data_dir: Path | None = None, screen: Screen | None = None) -> int:
    """Play the demo. Returns 0, or 1 after saying which step failed. The data folder stays, with the recording in it."""
    folder = data_dir or Path(tempfile.mkdtemp(prefix="switchhook-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    shown = screen or Screen()
    try:
        asyncio.run(_unless_terminated(folder.resolve(), keep, shown))
    except (DemoFailedError, ServerFailedError) as error:
        shown.verdict(False, f"\nThe demo failed. {error}")
        shown.plain(f"Everything it wrote is in {folder.resolve()}")
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        shown.plain("\nstopped before its end")
        return 130
    shown.verdict(True, "\nThe demo call went as it should.")
    return 0


async def _unless_terminated(folder: Path, keep: bool, screen: Screen) -> None:
    """SIGTERM ends the demo as Ctrl-C does: the server goes with it."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await play(folder, keep, screen)


async def play(folder: Path, keep: bool, screen: Screen) -> None:
    """Server and backend up, the call, the checks, and down again whatever happens."""
    server = ServerChild.in_folder(folder, SIP_PORT if keep else None)
    backend = Backend(agent_for(server.media_url, server.token), screen.event)
    try:
        await backend.serve()
        screen.plain("Starting the server …")
        screen.plain(await server.start(backend.address))
        screen.plain(f"A caller dials {server.sip_uri}; {backend.agent.name} answers.\n")
        try:
            told = await server.while_alive(_call(server, screen))
            end = await server.while_alive(_call_end(backend))
            recording = await _recording(folder)
            _check(backend, end)
        except DemoFailedError as error:
            raise DemoFailedError(f"{error}\n\nThe end of the server's log ({server.log}):\n{server.log_tail()}") from error
        screen.call_end(end)
        screen.latencies(told)
        screen.recording(recording)
        if keep:
            await _stay(server, screen)
    finally:
        await server.stop()
        await backend.close()


async def _call(server: ServerChild, screen: Screen) -> Told:
    """The call itself, bounded."""
    async with Phone(user="+17205550142", display_name="Demo Caller") as phone:
        screen.begin()
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                call = await phone.dial(server.sip_uri)
                await call.answered()
                return await converse(call, SCRIPT, lambda what: screen.line("caller", f"({what})"))
        except CallRefusedError as error:
            raise DemoFailedError(f"Dialling: {error}.") from error
        except CallerFailedError as error:
            raise DemoFailedError(f"The caller's step failed: {error}.") from error
        except TimeoutError as error:
            reason = str(error) or f"the call took longer than {CALL_TIMEOUT_S} s"
            raise DemoFailedError(f"The call: {reason}.") from error


async def _call_end(backend: Backend) -> dict[str, Any]:
    try:
        await asyncio.wait_for(backend.ended.wait(), CALL_END_TIMEOUT_S)
    except TimeoutError as error:
        raise DemoFailedError(f"CallEnd did not reach the backend within {CALL_END_TIMEOUT_S} s.") from error
    return backend.of("end")[-1].body


async def _recording(folder: Path) -> RecordingFacts:
    """Wait for the recording to be made; only a whole file with two channels counts."""
    reason = "no .wav file came"
    loop = asyncio.get_running_loop()
    deadline = loop.time() + RECORDING_TIMEOUT_S
    while loop.time() < deadline:
        for path in sorted(folder.rglob("*.wav")):
            try:
                return read_recording(path)
            except (ValueError, EOFError, OSError) as error:
                reason = f"{path}: {error}"
        await asyncio.sleep(0.2)
    raise DemoFailedError(f"The recording: {reason} within {RECORDING_TIMEOUT_S} s.")


def _check(backend: Backend, end: dict[str, Any]) -> None:
    """What a call like this must have left at the backend."""
    tools = [str(event.body["VoiceElements_InvokeTool"]["toolName"]) for event in backend.of("tool")]
    transcription = [str(line) for line in end.get("transcription") or []]
    required = {
        "CallEnd's status is 0": end.get("status") == 0,
        "exactly one CallEnd came": len(backend.of("end")) == 1,
        "a tool ran": bool(tools),
        "the appointment was booked": any(event.answer.get("booked") for event in backend.of("tool")),
        "the transcript has lines of the caller": any(" User:" in line for line in transcription),
        "the transcript has lines of the agent": any(" AI :" in line for line in transcription),
        "the transcript was delivered live": bool(backend.of("line")),
    }
    missing = [what for what, holds in required.items() if not holds]
    if missing:
        raise DemoFailedError(
            f"After the call it is not so that {'; '.join(missing)}. Tools that ran: {', '.join(tools) or 'none'}."
        )


async def _stay(server: ServerChild, screen: Screen) -> None:
    """Wait for Ctrl-C, or for the server's end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    for line in softphone_help(server.sip_uri, server.sip_port):
        screen.plain(line)
    await server.while_alive(stop.wait())
