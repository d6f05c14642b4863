"""In charge of what the product can be asked to do: take a call in, run a tool, finish a call, deliver webhooks, apply a file."""
