"""In charge of the Veevo contract: its callbacks, its replies, its tools, its number registration. See README.md in this folder."""
