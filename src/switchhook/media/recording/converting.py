"""A finished recording in another format: a job for a worker process."""

from __future__ import annotations

from pathlib import Path

from switchhook.domain.errors import RecordingError


def convert(source: Path, target: Path) -> None:
    """Write the sound of `source` in the format of the name of `target` (wav, mp3, opus). Raises RecordingError."""
    import soundfile  # only workers need it

    from switchhook.media.recording.making import FORMATS, SAMPLE_TYPES

    try:
        with soundfile.SoundFile(source) as opened:
            kind = target.suffix.removeprefix(".")
            options, samples = FORMATS[kind], SAMPLE_TYPES[kind]
            with soundfile.SoundFile(target, "w", samplerate=opened.samplerate, channels=opened.channels, **options) as made:
                for block in opened.blocks(blocksize=opened.samplerate * 10, dtype=samples, always_2d=True):
                    made.write(block)
    except (soundfile.SoundFileError, OSError) as error:
        raise RecordingError(f"the recording cannot be converted: {error}") from None
