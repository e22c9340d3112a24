"""CURVE keys: each process's own pair in the data folder, and the public keys of those it talks to."""

import os
import uuid
from pathlib import Path

import msgspec
import zmq

from nacre.base.errors import NacreError


class KeyPair(msgspec.Struct, frozen=True):
    """Both halves, as ZeroMQ's 40 printable characters."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"KeyPair({self.public}, secret hidden)"


def new_keys() -> KeyPair:
    """A fresh pair."""
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


def load_keys(path: Path) -> KeyPair:
    """The pair kept at `path`, made at the first call (mode 0600). Raises NacreError if others may read it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        _keep(path, new_keys())
    if path.stat().st_mode & 0o077:
        raise NacreError(f"{path} holds a secret key but others may read it: chmod 600 {path}")
    try:
        return msgspec.json.decode(path.read_bytes(), type=KeyPair)
    except msgspec.DecodeError:
        raise NacreError(f"{path} is not a key file: remove it, and a new pair is made.") from None


def _keep(path: Path, keys: KeyPair) -> None:
    """Write them whole or not at all, whenever this process dies; another process may have been first."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(msgspec.json.encode(keys))
        out.flush()
        os.fsync(out.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
