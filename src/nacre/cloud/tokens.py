"""Join tokens: a line of text that says which cloud, where its controls answer, and a key that counts once.

Pure: text in, values out. Whether a token counts is decided where its row is (`joining.py`).
"""

import base64
import binascii

import msgspec

from nacre.base.errors import BadRequest
from nacre.base.rpc.keys import KeyPair
from nacre.conductor.contract import ControlAddress

#: What every token begins with; another form gets another number.
PREFIX = "nacre1-"
#: Characters of a token at most: some hundred controls.
LONGEST = 20_000


class JoinToken(msgspec.Struct, frozen=True, kw_only=True):
    """keys: with which the machine speaks until it has joined; expires: seconds since the epoch."""

    id: str
    cloud: str
    expires: int
    keys: KeyPair
    controls: tuple[ControlAddress, ...]


def payload(token: JoinToken) -> str:
    """The token without its signature."""
    return PREFIX + base64.urlsafe_b64encode(msgspec.json.encode(token)).rstrip(b"=").decode()


def split(text: str) -> tuple[JoinToken, str, str]:
    """The token, what was signed, and the signature, which is not looked at. Raises BadRequest for anything else."""
    signed, dot, signature = text.strip().partition(".")
    try:
        if len(text) > LONGEST or not (signed.startswith(PREFIX) and dot and signature):
            raise ValueError
        raw = signed.removeprefix(PREFIX)
        held = base64.b64decode(raw + "=" * (-len(raw) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(held, type=JoinToken), signed, signature
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise BadRequest("This is no join token, or not the whole of it: `nacre token create` on a control prints one "
                         f"line that begins with {PREFIX}.") from None
