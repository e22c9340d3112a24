"""A token's text: everything comes back, and nothing that we did not make is taken."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.base.errors import Unauthenticated
from nacre.identity.keys.rows import Key
from nacre.identity.tokens import METHODS, SCOPES, Payload, new_audit_id, seal, unseal

KEY, OTHER = Key(12, bytes(range(32))), Key(12, bytes(32))
KEYS = {12: KEY, 13: Key(13, b"1" * 32)}
IDS = st.one_of(st.uuids().map(lambda u: u.hex), st.text(max_size=64), st.just("default"))
TIMES = st.floats(min_value=0, max_value=4e9, allow_nan=False)
PAYLOADS = st.builds(
    Payload, user_id=IDS, methods=st.sets(st.sampled_from(METHODS), min_size=1).map(
        lambda s: tuple(m for m in METHODS if m in s)),
    scope=st.sampled_from(SCOPES), scope_id=IDS, issued_at=TIMES, expires_at=TIMES,
    audit_ids=st.lists(st.builds(new_audit_id), min_size=1, max_size=2).map(tuple))


@given(PAYLOADS)
def test_there_and_back(payload: Payload) -> None:
    assert unseal(seal(payload, KEY), KEYS) == payload


def test_a_token_is_small() -> None:
    payload = Payload(user_id="0" * 32, methods=("password", "token"), scope="project", scope_id="f" * 32,
                      issued_at=1e9, expires_at=2e9, audit_ids=(new_audit_id(), new_audit_id()))
    assert len(seal(payload, KEY)) < 256


@settings(max_examples=200)
@given(PAYLOADS, st.data())
def test_one_bit_is_enough(payload: Payload, data: st.DataObject) -> None:
    token = bytearray(seal(payload, KEY), "ascii")
    at, bit = data.draw(st.integers(0, len(token) - 1)), data.draw(st.integers(0, 7))
    token[at] ^= 1 << bit
    with pytest.raises(Unauthenticated):
        unseal(token.decode("latin-1"), KEYS)


@given(PAYLOADS, st.sampled_from("=!~ \n+/."), st.integers(0, 60))
def test_a_token_has_one_spelling(payload: Payload, extra: str, at: int) -> None:
    token = seal(payload, KEY)
    with pytest.raises(Unauthenticated):
        unseal(token[:at] + extra + token[at:], KEYS)


@given(st.text(max_size=300))
def test_junk_is_no_token(text: str) -> None:
    with pytest.raises(Unauthenticated):
        unseal(text, KEYS)


def test_anothers_key_and_anothers_message() -> None:
    payload = Payload(user_id="u", methods=("password",), issued_at=1.0, expires_at=2.0, audit_ids=(new_audit_id(),))
    mine = seal(payload, KEY)
    for foreign in (seal(payload, OTHER), *(f"12.{KEY.fernet.encrypt(text).decode().rstrip('=')}" for text in (
            b"something else", b"\x97" * 7)), "13" + mine[2:], "14" + mine[2:], "012" + mine[2:], "+12" + mine[2:]):
        with pytest.raises(Unauthenticated):
            unseal(foreign, KEYS)


def earlier(payload: Payload, key: Key) -> str:
    """As releases before keys had numbers wrote it."""
    body = seal(payload, key).partition(".")[2]
    inner = key.fernet.decrypt(body + "=" * (-len(body) % 4))
    return key.fernet.encrypt(msgspec.msgpack.encode(msgspec.msgpack.decode(inner)[:7])).rstrip(b"=").decode()


def test_a_token_that_names_no_key_is_tried_with_each() -> None:
    payload = Payload(user_id="u", methods=("password",), issued_at=1.0, expires_at=2.0, audit_ids=(new_audit_id(),))
    for key in KEYS.values():
        assert unseal(earlier(payload, key), KEYS) == payload
    with pytest.raises(Unauthenticated):
        unseal(earlier(payload, OTHER), KEYS)


@given(PAYLOADS)
def test_a_token_that_names_its_key_is_none_without_it(payload: Payload) -> None:
    token = seal(payload, KEY)
    body = token.partition(".")[2]
    padding = "=" * (-len(body) % 4 or 4)
    for other in (body, f".{body}", f"012.{body}", f"13.{body}", f"{token}{padding}", token.upper(), token.swapcase(),
                  f" {token}", f"{token}\n", f"{token}\x00", token.replace("-", "+").replace("_", "/")):
        if other != token:
            with pytest.raises(Unauthenticated):
                unseal(other, KEYS)
