"""What a worker process does to speak a text: run the engine, cut the silence, resample, encode."""

from __future__ import annotations

import ctypes
import functools
import io
import subprocess
import tempfile
import wave
from collections.abc import Callable
from pathlib import Path

from switchhook.domain.model import Encoding
from switchhook.media import g711

_TIMEOUT_S = 15.0
_FLITE_VOICE = "slt"
_ESPEAK_WORDS_A_MINUTE = 150
_QUIET = 200
"""Peak of a linear sample that still counts as silence at the ends."""
_EDGE_MS = 20
"""Silence kept on both sides."""


class RenderFailed(Exception):
    """The engine gave no sound."""


def render(engine: str, text: str, encoding: Encoding) -> bytes:
    """Return the sound of a text in the encoding. Runs in a worker process. Raises RenderFailed."""
    try:
        linear, rate_hz = _ENGINES[engine](text)
    except (OSError, subprocess.SubprocessError, wave.Error, EOFError) as error:
        raise RenderFailed(str(error)) from error
    linear = _trimmed(linear, rate_hz)
    if not linear:
        raise RenderFailed("it gave only silence")
    # The server's process imports this module for the names in it; numpy and what needs it are for the worker alone.
    from switchhook.media.resample import Resampler

    flush = bytes(2 * (rate_hz // 100))
    out = Resampler(rate_hz, encoding.rate_hz).process(linear + flush) if rate_hz != encoding.rate_hz else linear
    return out if encoding is Encoding.PCM24 else g711.encode(out, encoding)


def _flite(text: str) -> tuple[bytes, int]:
    # Text goes in by standard input, where nothing in it can be an option; flite writes its file only to a real path.
    with tempfile.TemporaryDirectory(prefix="switchhook-voice-") as folder:
        target = Path(folder, "speech.wav")
        _run(["flite", "-voice", _FLITE_VOICE, "-o", str(target)], text)
        return _samples(target.read_bytes())


def _espeak(text: str) -> tuple[bytes, int]:
    return _samples(_run(["espeak-ng", "-v", "en-us", "-s", str(_ESPEAK_WORDS_A_MINUTE), "--stdin", "--stdout"], text))


def _run(command: list[str], text: str) -> bytes:
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=True, timeout=_TIMEOUT_S)
    return done.stdout


def _samples(riff: bytes) -> tuple[bytes, int]:
    with wave.open(io.BytesIO(riff)) as file:
        if file.getnchannels() != 1 or file.getsampwidth() != 2:
            raise RenderFailed("the engine's file is not 16-bit mono")
        # espeak-ng writes the length 0x7ffff000 when it does not know it: read what is there.
        rate_hz = file.getframerate()
        at = riff.index(b"data") + 8
        whole = (len(riff) - at) // 2 * 2
        return riff[at : at + whole], rate_hz


def _trimmed(linear: bytes, rate_hz: int) -> bytes:
    import numpy as np

    samples = np.frombuffer(linear, "<i2")
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > _QUIET)
    if not len(loud):
        return b""
    edge = _EDGE_MS * rate_hz // 1000
    return samples[max(0, int(loud[0]) - edge) : int(loud[-1]) + 1 + edge].tobytes()


class _EspeakWheel:
    """The espeak-ng library of the wheel, by ctypes (speak_lib.h, API revision 12)."""

    _RETRIEVAL = 1
    _UTF8 = 1
    _RATE = 1
    _SYNTH_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

    def __init__(self) -> None:
        import espeakng_loader  # the extra `espeak`; a GPL library, so only ever inside a worker

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data_path = str(espeakng_loader.get_data_path()).encode()
        self._rate_hz = int(self._library.espeak_Initialize(self._RETRIEVAL, 0, data_path, 0))
        if self._rate_hz <= 0:
            raise RenderFailed("the espeak-ng library does not start")
        self._parts: list[bytes] = []
        self._on_sound = self._SYNTH_CALLBACK(self._receive)  # kept: the library holds only a pointer
        self._library.espeak_SetSynthCallback(self._on_sound)
        self._library.espeak_SetVoiceByName(b"en-us")
        self._library.espeak_SetParameter(self._RATE, _ESPEAK_WORDS_A_MINUTE, 0)

    def speak(self, text: str) -> tuple[bytes, int]:
        self._parts.clear()
        data = text.encode()
        status = self._library.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, 0, 0, self._UTF8, None, None)
        if status != 0:
            raise RenderFailed(f"espeak_Synth gave {status}")
        self._library.espeak_Synchronize()
        return b"".join(self._parts), self._rate_hz

    def _receive(self, samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int | None) -> int:
        if count > 0:
            self._parts.append(ctypes.string_at(samples, 2 * count))
        return 0


@functools.cache
def _espeak_wheel() -> _EspeakWheel:
    """One library per worker process."""
    return _EspeakWheel()


_ENGINES: dict[str, Callable[[str], tuple[bytes, int]]] = {
    "flite": _flite,
    "espeak-ng": _espeak,
    "espeak-wheel": lambda text: _espeak_wheel().speak(text),
}
