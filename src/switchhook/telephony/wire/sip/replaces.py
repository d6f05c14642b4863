"""The Replaces header (RFC 3891): a call that takes the place of another, as attended transfers end."""

from __future__ import annotations

import re
from dataclasses import dataclass

from switchhook.telephony.wire.sip.dialog import Dialog, DialogKey
from switchhook.telephony.wire.sip.errors import GrammarError, RemoteProtocolError
from switchhook.telephony.wire.sip.grammar import is_token, parse_params
from switchhook.telephony.wire.sip.message import Request

_CALL_ID = re.compile(r"[^\s;,\x00-\x20\x7f]{1,256}")
_NO_TAG = "0"
"""Stands for the missing tag of an RFC 2543 peer (RFC 3891 §6.1)."""


@dataclass(frozen=True, slots=True)
class Replaces:
    """Names a dialog as the one who has it sees it: `to_tag` is the reader's own tag."""

    call_id: str
    to_tag: str
    from_tag: str
    early_only: bool = False
    """Only if it is not answered yet."""

    @classmethod
    def parse(cls, text: str) -> Replaces:
        """Read `call-id;to-tag=…;from-tag=…`.

        Raises:
            GrammarError: not that.
        """
        call_id, semicolon, rest = text.partition(";")
        call_id = call_id.strip()
        if not _CALL_ID.fullmatch(call_id):
            raise GrammarError("expected a Call-ID")
        params = parse_params(semicolon + rest)
        to_tag, from_tag = params.get("to-tag") or "", params.get("from-tag") or ""
        if not is_token(to_tag) or not is_token(from_tag):
            raise GrammarError("expected to-tag and from-tag")
        return cls(call_id, to_tag, from_tag, "early-only" in params)

    def dialog_keys(self) -> list[DialogKey]:
        """What may find the dialog: a tag of zero also matches a peer that gave none (RFC 3891 §3)."""
        keys = [(self.call_id, self.to_tag, self.from_tag)]
        return [*keys, (self.call_id, self.to_tag, "")] if self.from_tag == _NO_TAG else keys

    def __str__(self) -> str:
        early_only = ";early-only" if self.early_only else ""
        return f"{self.call_id};to-tag={self.to_tag};from-tag={self.from_tag}{early_only}"


def replaces_value(dialog: Dialog) -> str:
    """How a third party names this dialog of ours to the peer at its other end: the value of a Replaces header."""
    return str(Replaces(dialog.call_id, dialog.remote.tag or _NO_TAG, dialog.local.tag or _NO_TAG))


def replaces_of(invite: Request) -> Replaces | None:
    """What an INVITE asks to replace; None when it is an ordinary one.

    Raises:
        RemoteProtocolError: 400, several Replaces or a broken one (RFC 3891 §3).
    """
    values = invite.headers.get_all("Replaces")
    if not values:
        return None
    if len(values) > 1:
        raise RemoteProtocolError(400, "Replaces: several values")
    try:
        return Replaces.parse(values[0])
    except GrammarError as error:
        raise RemoteProtocolError(400, f"Replaces: {error}") from None
