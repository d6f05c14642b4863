"""In charge of the Veevo contract: callbacks, replies, tools, number registration. See README.md in this folder."""
