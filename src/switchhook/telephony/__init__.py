"""In charge of turning any outside phone line into a `Leg`.

`wire` holds the sans-I/O protocols; the other modules are the shells with sockets around them. Knows no AI and no contract.
"""
