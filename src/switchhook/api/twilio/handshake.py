"""Handshakes of Media Streams are signed, too, over their `wss:` address and without fields (contract `vns-veevo` §4.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from switchhook.api.twilio.signature import SignedRequest, is_signed_by


class Handshakes:
    """Tells Twilio's handshakes from others'."""

    def __init__(self, public_media_url: str | None, auth_tokens: Callable[[], Iterable[str]]) -> None:
        """`auth_tokens` are those of the calls that are live at this moment: nobody else has reason to open a stream."""
        self._public_url = (public_media_url or "").rstrip("/")
        self._auth_tokens = auth_tokens

    def signed(self, path: str, signature: str, settings: str = "") -> bool:
        """Whether a handshake for `path` (with its query) bears a valid signature."""
        if not self._public_url or not signature:
            return False
        # Some of Twilio's servers sign the address with a slash behind it.
        requests = [SignedRequest(self._public_url + path + end, signature, settings=settings) for end in ("", "/")]
        return any(is_signed_by(request, token) for token in self._auth_tokens() for request in requests)
