"""In charge of audio frames and what is done to sound: codecs, resampling, playout, recording, tones.

Knows no phone line and no AI; `telephony`, `agents` and `calls` stand on it.
"""
