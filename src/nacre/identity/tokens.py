"""What a token says, and its form on the wire: a key's number, a dot, msgpack in Fernet. Nothing about it is stored."""

import base64
import binascii
import contextlib
import secrets
from collections.abc import Mapping

import msgspec
from cryptography.fernet import InvalidToken

from nacre.base.errors import Unauthenticated
from nacre.identity.keys.ring import number_of
from nacre.identity.keys.rows import Key

#: Order is the wire format: append only.
METHODS = ("password", "token", "application_credential", "trust", "oauth1")
SCOPES = ("unscoped", "project", "domain", "system", "trust", "application_credential", "oauth1")


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """One token. Times are seconds since the epoch."""

    user_id: str
    methods: tuple[str, ...]
    scope: str = "unscoped"
    scope_id: str = ""  # the project, domain, trust, application credential or access token
    issued_at: float
    expires_at: float
    audit_ids: tuple[str, ...]  # its own, then that of the token it came from
    revision: int = 0  # of identity, when it was issued

    @property
    def audit_id(self) -> str:
        return self.audit_ids[0]


class Wire(msgspec.Struct, frozen=True, array_like=True):
    """A payload made small."""

    user: bytes
    methods: int
    scope: int
    scope_id: bytes
    issued: float
    expires: float
    audit: tuple[bytes, ...]
    revision: int = 0
    key: int = 0  # the number before the dot; 0: of a release before


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Wire)


def new_audit_id() -> str:
    """A short public name for a token."""
    return base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()


def seal(payload: Payload, key: Key) -> str:
    """The token's text."""
    wire = Wire(_pack(payload.user_id), sum(1 << METHODS.index(m) for m in payload.methods),
                SCOPES.index(payload.scope), _pack(payload.scope_id), payload.issued_at, payload.expires_at,
                tuple(_unbase(a) for a in payload.audit_ids), payload.revision, key.number)
    return f"{key.number}.{key.fernet.encrypt(_encoder.encode(wire)).rstrip(b'=').decode()}"


def unseal(token: str, keys: Mapping[int, Key]) -> Payload:
    """What a token says, expired or not. keys: those of this cloud, by number.

    Raises Unauthenticated for anything we did not make, to the last bit.
    """
    try:
        wire = _decoder.decode(_decrypted(token, keys))
        if wire.key not in (0, number_of(token)):  # else a token would be one without its number too
            raise Unauthenticated
        return Payload(
            user_id=_unpack(wire.user), methods=tuple(m for i, m in enumerate(METHODS) if wire.methods & 1 << i),
            scope=SCOPES[wire.scope], scope_id=_unpack(wire.scope_id), issued_at=wire.issued,
            expires_at=wire.expires, audit_ids=tuple(_base(a) for a in wire.audit), revision=wire.revision)
    except (InvalidToken, binascii.Error, ValueError, IndexError, msgspec.DecodeError):
        raise Unauthenticated from None


def _decrypted(token: str, keys: Mapping[int, Key]) -> bytes:
    number = number_of(token)
    text = (token if number is None else token.partition(".")[2]).encode("ascii")
    padded = text + b"=" * (-len(text) % 4)
    # base64 decoders skip foreign characters and unused bits: one token must have one spelling, without its padding
    if b"=" in text:
        raise Unauthenticated
    if base64.urlsafe_b64encode(base64.b64decode(padded, altchars=b"-_", validate=True)) != padded:
        raise Unauthenticated
    if number is not None:
        if number not in keys:
            raise Unauthenticated
        return keys[number].fernet.decrypt(padded)
    for key in keys.values():  # tokens of releases before keys had numbers; none is left a token's lifetime later
        with contextlib.suppress(InvalidToken):
            return key.fernet.decrypt(padded)
    raise Unauthenticated


def _pack(text: str) -> bytes:
    """Ids are nearly always 32 hex digits: half the size as bytes."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    return b"h" + raw if raw.hex() == text else b"t" + text.encode()


def _unpack(value: bytes) -> str:
    return value[1:].hex() if value[:1] == b"h" else value[1:].decode()


def _base(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _unbase(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
