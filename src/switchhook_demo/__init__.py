"""In charge of the demo: a sample backend, a simulated caller on a real SIP line, and the terminal that shows a call.

It stands outside the server: it starts `switchhook serve` as a process and meets it on its public doors only.
"""
