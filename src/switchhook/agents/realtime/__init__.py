"""In charge of the OpenAI Realtime protocol: client machine, its socket, and the endpoint that serves it."""
