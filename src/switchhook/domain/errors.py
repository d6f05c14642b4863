"""The errors of the product: each knows its stable code and whether trying again can help."""

from __future__ import annotations


class SwitchhookError(Exception):
    """Something went wrong."""

    code = "error"
    retryable = False

    def __init__(self, message: str = "") -> None:
        super().__init__(message or type(self).__doc__ or self.code)


class SettingError(SwitchhookError):
    """A setting is unknown or has a value that cannot be used."""

    code = "setting-invalid"


class ApplyError(SwitchhookError):
    """The file to apply names something that does not exist or has a bad value."""

    code = "apply-invalid"


class EgressRefused(SwitchhookError):
    """The target address is private, loopback or link-local and not on the egress allow-list."""

    code = "egress-refused"


class MissingExtra(SwitchhookError):
    """An optional part is not installed."""

    code = "extra-missing"


class RecordingError(SwitchhookError):
    """A recording cannot be read, decrypted or made."""

    code = "recording-unreadable"


class VoiceUnavailable(SwitchhookError):
    """No local voice is installed: install flite or espeak-ng, or the extra `switchhook[espeak]`."""

    code = "voice-unavailable"


class GreetingUnavailable(SwitchhookError):
    """The greeting of a call could not be fetched or read; the agent speaks first instead."""

    code = "greeting-unavailable"


class PortsExhausted(SwitchhookError):
    """Every RTP port of the range is leased."""

    code = "rtp-ports-exhausted"
    retryable = True


class StoreUnavailable(SwitchhookError):
    """The database cannot be reached, or is being closed."""

    code = "store-unavailable"
    retryable = True


class DirectoryChanged(SwitchhookError):
    """The configuration was changed by somebody else meanwhile: look again."""

    code = "directory-changed"
    retryable = True


class SecretUnreadable(SwitchhookError):
    """A stored secret was sealed under another server key: give the server its old SWITCHHOOK_SECRET_KEY or `server.key` back."""

    code = "secret-unreadable"
