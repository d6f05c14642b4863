"""In charge of what the AI hears, thinks and says.

`realtime` is the speech-to-speech client, `embedded` the engine that needs no key, `providers` the vendors. Knows no phone line.
"""
