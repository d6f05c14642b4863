"""Secrets at rest: AES-256-GCM under the server key.

A sealed value is `key id (4) | nonce (12) | ciphertext | tag (16)`. The key id is the beginning of the key's SHA-256, so that a
value of another server key is told apart from a damaged one. The `context` (a table's name and the row's key) is authenticated:
a sealed value moved to another row does not open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from switchhook.domain.errors import SecretUnreadable, SettingError
from switchhook.store.made_once import made_once

KEY_FILE = "server.key"
KEY_BYTES = 32
_KEY_ID_BYTES = 4
_NONCE_BYTES = 12
_DATA_KEY = b"data-key"
_CURE = "give base64 of 32 random bytes, for example from `openssl rand -base64 32`"


class SecretBox:
    """Seals and opens small secrets with the server key (32 bytes)."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._key_id = hashlib.sha256(key).digest()[:_KEY_ID_BYTES]

    def seal(self, plain: bytes, context: bytes = b"") -> bytes:
        """Encrypt; the same context opens it again."""
        nonce = os.urandom(_NONCE_BYTES)
        return self._key_id + nonce + self._cipher.encrypt(nonce, plain, context)

    def open(self, sealed: bytes, context: bytes = b"") -> bytes:
        """Decrypt. Raises SecretUnreadable."""
        if sealed[:_KEY_ID_BYTES] != self._key_id:
            raise SecretUnreadable
        nonce, ciphertext = sealed[_KEY_ID_BYTES:][:_NONCE_BYTES], sealed[_KEY_ID_BYTES + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, ciphertext, context)
        except (InvalidTag, ValueError):
            raise SecretUnreadable("a stored secret is damaged: write it again with `switchhook apply`") from None

    def wrap(self, data_key: bytes) -> bytes:
        """Seal a key that encrypts data elsewhere (a recording's)."""
        return self.seal(data_key, _DATA_KEY)

    def unwrap(self, wrapped: bytes) -> bytes:
        """Get a wrapped key back. Raises SecretUnreadable."""
        return self.open(wrapped, _DATA_KEY)


def server_key(data_dir: Path, value: str | None) -> bytes:
    """The server key: from the setting, else from `server.key` in the data directory, which is made at first start.

    Raises SettingError when the setting or the file does not hold base64 of 32 bytes.
    """
    if value is not None:
        return _decode(value, "SWITCHHOOK_SECRET_KEY")
    path = data_dir / KEY_FILE
    kept = made_once(path, base64.b64encode(os.urandom(KEY_BYTES)) + b"\n")
    return _decode(kept.decode("ascii", "replace"), str(path))


def _decode(text: str, where: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise SettingError(f"{where} is not base64: {_CURE}") from None
    if len(key) != KEY_BYTES:
        raise SettingError(f"{where} holds {len(key)} bytes, not {KEY_BYTES}: {_CURE}")
    return key
