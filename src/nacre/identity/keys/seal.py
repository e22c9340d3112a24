"""The seal key: 32 bytes that each control has from its operator. Only what it sealed lies in the database."""

import base64
import binascii
import os
import uuid
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from nacre.base.errors import NacreError

SIZE, NONCE = 32, 12


class SealError(NacreError):
    """The seal key is missing, wrong or badly kept; the message says what to do."""


class SealKey:
    """Encrypts keys for the database, each bound to its purpose and number."""

    def __init__(self, raw: bytes):
        self._cipher = AESGCM(raw)

    def seal(self, purpose: str, number: int, secret: bytes) -> bytes:
        """What may lie in the database."""
        nonce = os.urandom(NONCE)
        return nonce + self._cipher.encrypt(nonce, secret, _about(purpose, number))

    def open(self, purpose: str, number: int, blob: bytes) -> bytes:
        """The secret. Raises InvalidTag: another key sealed it, or it is another key's."""
        return self._cipher.decrypt(blob[:NONCE], blob[NONCE:], _about(purpose, number))


class Seal:
    """The seal key that a control has now: of the option (a key, or a file's absolute path), else of the file `path`.

    A file that was replaced counts at once: `nacre keys reseal` changes the key while controls run.
    """

    def __init__(self, path: Path, given: str = ""):
        self.folder = path.parent
        self.file = path if not given else Path(given) if given.startswith("/") else None
        self._given = given
        self._key: SealKey | None = None

    def load(self) -> bool:
        """Whether there is a key. Raises SealError for one that cannot be read, or that others may read."""
        if self.file is None:
            self._key = parse(self._given, "identity.seal_key")
        elif self.file.exists():
            self._key = read(self.file)
        return self._key is not None

    def make(self) -> None:
        """A new key in the file. Another process may have been first: then its key counts."""
        assert self.file is not None
        write_new(self.file)
        self._key = read(self.file)

    def forget(self) -> None:
        """Undo `make`."""
        assert self.file is not None
        self.file.unlink(missing_ok=True)
        self._key = None

    def replace(self, new: Path) -> bool:
        """Put the key of another file in the place of this one. False: the option holds the key itself."""
        if self.file is None:
            return False
        draft = self.file.with_name(f".{self.file.name}.{uuid.uuid4().hex}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(new.read_bytes())
            out.flush()
            os.fsync(out.fileno())
            there = self.file.stat()
            os.fchown(out.fileno(), there.st_uid, there.st_gid)  # control may run as another user than this command
        draft.rename(self.file)
        return True

    def seal(self, purpose: str, number: int, secret: bytes) -> bytes:
        """As SealKey's. Raises SealError if there is no key."""
        return self._current().seal(purpose, number, secret)

    def open(self, purpose: str, number: int, blob: bytes) -> bytes:
        """As SealKey's. Raises SealError if the key that this control has now is not the one."""
        try:
            return self._current().open(purpose, number, blob)
        except InvalidTag:
            self.load()
        try:
            return self._current().open(purpose, number, blob)
        except InvalidTag:
            raise SealError(
                f"The cloud's keys in the database are sealed by another key than {self.file or 'identity.seal_key'} "
                f"holds: {self._cure()}.") from None

    def _current(self) -> SealKey:
        if self._key is None and not self.load():
            raise SealError(f"The cloud's keys in the database are sealed, and there is no {self.file}: "
                            f"{self._cure()}.")
        assert self._key is not None
        return self._key

    def _cure(self) -> str:
        if self.file is None:
            return "set NACRE_IDENTITY_SEAL_KEY to the cloud's seal key"
        return (f"copy the seal key of a control that works (its control/seal-key) to {self.file}, mode 600, or set "
                "NACRE_IDENTITY_SEAL_KEY to what it holds")


def read(path: Path) -> SealKey:
    """The seal key of a file. Raises SealError if it cannot be read, if others may, or if it holds something else."""
    try:
        if path.stat().st_mode & 0o077:
            raise SealError(f"{path} holds a secret key but others may read it: chmod 600 {path}")
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SealError(f"{path} cannot be read: {getattr(error, 'strerror', 'it is no text')}.") from None
    return parse(text, str(path))


def parse(text: str, where: str) -> SealKey:
    """The seal key that a text holds. where: what to name if it holds none. Raises SealError."""
    try:
        raw = base64.b64decode(text.strip(), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != SIZE:
        raise SealError(f"{where} holds no seal key: that is {SIZE} random bytes in URL-safe base64, in one line.")
    return SealKey(raw)


def write_new(path: Path) -> bool:
    """Keep a new seal key in `path`: whole or not at all, and on the disk before anything is sealed by it. False: there
    is such a file already, which is left as it is."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(base64.urlsafe_b64encode(os.urandom(SIZE)) + b"\n")
        out.flush()
        os.fsync(out.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    return True


def _about(purpose: str, number: int) -> bytes:
    return f"nacre {purpose} {number}".encode()
