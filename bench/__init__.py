"""In charge of measuring: simulated callers, a stub model and a stub backend drive a server and say what it costs."""
