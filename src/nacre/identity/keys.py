"""Keys for tokens and secrets: a folder of Fernet keys, rotated without making older tokens void.

File `0` is the staged key (the next primary, already good for reading), the highest number is the primary (writes), the
rest are secondary (reads only).
"""

import os
import time
import uuid
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

RELOAD_SECONDS = 5.0


class Keyring:
    """Encrypts with the newest key of `folder`, decrypts with any. Creates the folder and two keys if there are none.

    keep: how many keys rotation leaves.
    """

    def __init__(self, folder: Path, keep: int = 3):
        self._folder, self._keep, self._read_at = folder, max(keep, 2), 0.0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._numbers():
            _write(folder / "0")
            _write(folder / "1")
        self._fernet = self._load()

    def encrypt(self, data: bytes) -> bytes:
        """A Fernet token of `data`."""
        return self._fernet.encrypt(data)

    def decrypt(self, token: bytes) -> bytes:
        """The data. Raises InvalidToken. A token of a key that another process has just made is found too."""
        try:
            return self._fernet.decrypt(token)
        except InvalidToken:
            if time.monotonic() - self._read_at < RELOAD_SECONDS:
                raise
            self._fernet = self._load()
            return self._fernet.decrypt(token)

    def rotate(self) -> None:
        """The staged key becomes the primary; a new one is staged; the oldest beyond `keep` go."""
        numbers = self._numbers()
        os.replace(self._folder / "0", self._folder / str(numbers[-1] + 1))
        _write(self._folder / "0")
        numbers = self._numbers()
        for old in numbers[1:len(numbers) - self._keep + 1]:
            (self._folder / str(old)).unlink()
        self._fernet = self._load()

    def _numbers(self) -> list[int]:
        return sorted(int(p.name) for p in self._folder.iterdir() if p.name.isdigit())

    def _load(self) -> MultiFernet:
        self._read_at = time.monotonic()
        numbers = self._numbers()
        return MultiFernet([Fernet((self._folder / str(n)).read_bytes()) for n in reversed(numbers)])


def _write(path: Path) -> None:
    """A new key in `path`, whole or not at all; another process may have been first."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(Fernet.generate_key())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
