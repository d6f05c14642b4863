"""In charge of the Voice Nexus Service contract: its webhooks, its replies, its tools. See README.md in this folder."""
