"""A token's text: everything comes back, and nothing that we did not make is taken."""

import pytest
from cryptography.fernet import Fernet
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.base.errors import Unauthenticated
from nacre.identity.tokens import METHODS, SCOPES, Payload, new_audit_id, seal, unseal

KEY = Fernet(Fernet.generate_key())
OTHER = Fernet(Fernet.generate_key())
IDS = st.one_of(st.uuids().map(lambda u: u.hex), st.text(max_size=64), st.just("default"))
TIMES = st.floats(min_value=0, max_value=4e9, allow_nan=False)
PAYLOADS = st.builds(
    Payload, user_id=IDS, methods=st.sets(st.sampled_from(METHODS), min_size=1).map(
        lambda s: tuple(m for m in METHODS if m in s)),
    scope=st.sampled_from(SCOPES), scope_id=IDS, issued_at=TIMES, expires_at=TIMES,
    audit_ids=st.lists(st.builds(new_audit_id), min_size=1, max_size=2).map(tuple))


@given(PAYLOADS)
def test_there_and_back(payload: Payload) -> None:
    assert unseal(seal(payload, KEY), KEY) == payload


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
        unseal(token.decode("latin-1"), KEY)


@given(PAYLOADS, st.sampled_from("=!~ \n+/."), st.integers(0, 60))
def test_a_token_has_one_spelling(payload: Payload, extra: str, at: int) -> None:
    token = seal(payload, KEY)
    with pytest.raises(Unauthenticated):
        unseal(token[:at] + extra + token[at:], KEY)


@given(st.text(max_size=300))
def test_junk_is_no_token(text: str) -> None:
    with pytest.raises(Unauthenticated):
        unseal(text, KEY)


def test_anothers_key_and_anothers_message() -> None:
    payload = Payload(user_id="u", methods=("password",), issued_at=1.0, expires_at=2.0, audit_ids=(new_audit_id(),))
    for foreign in (seal(payload, OTHER), KEY.encrypt(b"something else").decode().rstrip("="),
                    KEY.encrypt(b"\x97" * 7).decode().rstrip("=")):
        with pytest.raises(Unauthenticated):
            unseal(foreign, KEY)
