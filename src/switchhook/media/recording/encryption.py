"""The encrypted recording file (`.enc`): `salt(16) | nonce(12) | ciphertext | tag(16)`, AES-256-GCM.

The key is PBKDF2-HMAC-SHA256(password, salt, 600,000 rounds, 32 bytes) (vns-veevo.md §1.9). The layout is ours and stands in this
module alone, so that a vendor's own can take its place.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from switchhook.domain.errors import RecordingError

SALT_BYTES = 16
NONCE_BYTES = 12
ROUNDS = 600_000


def derive_key(password: str, salt: bytes) -> bytes:
    """The file's key; takes a good fraction of a second of CPU on purpose, so run it in a worker."""
    return PBKDF2HMAC(SHA256(), 32, salt, ROUNDS).derive(password.encode())


def encrypt(plain: bytes, key: bytes, salt: bytes, nonce: bytes) -> bytes:
    """A whole `.enc` file. `nonce` must be fresh for the key."""
    return salt + nonce + AESGCM(key).encrypt(nonce, plain, None)


def decrypt(file: bytes, password: str) -> bytes:
    """The plain recording. Raises RecordingError when the password is wrong or the file was changed."""
    if len(file) < SALT_BYTES + NONCE_BYTES + 16:
        raise RecordingError("this is not an encrypted recording: it is too short")
    salt, nonce = file[:SALT_BYTES], file[SALT_BYTES : SALT_BYTES + NONCE_BYTES]
    try:
        return AESGCM(derive_key(password, salt)).decrypt(nonce, file[SALT_BYTES + NONCE_BYTES :], None)
    except InvalidTag:
        raise RecordingError("the password is wrong, or the file is damaged") from None
