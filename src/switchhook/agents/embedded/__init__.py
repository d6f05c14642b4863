"""In charge of the agent that needs no key and no network: VAD, grammar speech recognition, scripted dialogue, local voice.

Menu-grade on purpose: it follows a script of prompts and phrases; it does not converse freely.
"""
