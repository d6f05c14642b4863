"""In charge of our own Realtime endpoint: `GET /v1/realtime` speaks the OpenAI Realtime protocol (GA) to any client.

`door` is the way in (authorisation, one connection, its jobs), `listener` the WebSocket server; `session` is the protocol as a
machine, with `configuration`, `conversation`, `hearing` and `reply` as its parts. Behind it sits any `agents.brain.Brain`.
"""
