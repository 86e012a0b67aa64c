"""Encryption at rest and keyed digests, with keys that can be rotated.

`settings.ENCRYPTION_KEYS` lists Fernet keys; the first encrypts, all decrypt.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings

from provisioning.exceptions import ConductorError


class DecryptionError(ConductorError):
    """None of the encryption keys opens this value; restore the key it was written with."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


def encrypt(text: str) -> str:
    """Encrypt a text with the newest key."""
    return _fernet().encrypt(text.encode()).decode()


def decrypt(token: str) -> str:
    """Decrypt a text; raise DecryptionError if no key fits."""
    return decrypt_bytes(token.encode()).decode()


def encrypt_bytes(data: bytes) -> bytes:
    """Encrypt bytes with the newest key."""
    return _fernet().encrypt(data)


def decrypt_bytes(token: bytes) -> bytes:
    """Decrypt bytes; raise DecryptionError if no key fits."""
    try:
        return _fernet().decrypt(token)
    except InvalidToken as exc:
        raise DecryptionError from exc


def rotate(token: str) -> str:
    """Encrypt again, with the newest key, what an older key encrypted."""
    return rotate_bytes(token.encode()).decode()


def rotate_bytes(token: bytes) -> bytes:
    """Encrypt bytes again, with the newest key; raise DecryptionError if no key fits."""
    try:
        return _fernet().rotate(token)
    except InvalidToken as exc:
        raise DecryptionError from exc


def canonical_json(value: Any) -> str:
    """Write a JSON value so that equal values give equal texts (sorted keys, no spaces)."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def mac(value: Any) -> str:
    """Return the keyed digest of a JSON value: 64 hex digits that tell nothing without the key.

    The oldest key signs, so that adding a new key at the front keeps every stored digest.
    """
    return mac_bytes(canonical_json(value).encode())


def mac_bytes(data: bytes) -> str:
    """Return the keyed digest of bytes: 64 hex digits."""
    return hmac.new(_mac_key(), data, hashlib.sha256).hexdigest()


def _fernet() -> MultiFernet:
    return _fernet_for(tuple(settings.ENCRYPTION_KEYS))


@functools.lru_cache(maxsize=4)
def _fernet_for(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys])


def _mac_key() -> bytes:
    key = base64.urlsafe_b64decode(settings.ENCRYPTION_KEYS[-1])
    return hashlib.sha256(b"conductor mac\0" + key).digest()
