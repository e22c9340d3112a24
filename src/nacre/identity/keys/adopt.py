"""From key files to rows: clouds of earlier releases kept their keys in folders of one control's disk.

File `0` was the staged key, the highest number the primary. What such keys encrypted names no key: tokens are tried
with every key for as long as they live, stored secrets are encrypted anew at once.
"""

import base64
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from nacre.identity.keys import vault
from nacre.identity.keys.rows import SIZE, Key
from nacre.identity.keys.seal import SealError

FOLDERS = {"token": "token-keys", "credential": "credential-keys"}


def files(folder: Path) -> dict[str, list[bytes]]:
    """The keys in control's folder by purpose, oldest first, the staged one last; only of purposes that have a primary.

    Raises SealError for a file that holds no key."""
    found = {}
    for purpose, name in FOLDERS.items():
        numbers = _numbers(folder / name)
        if any(numbers):
            found[purpose] = [_secret(folder / name / str(n)) for n in numbers if n]
            found[purpose].append(_secret(folder / name / "0") if 0 in numbers else os.urandom(SIZE))
    return found


def encrypt_anew(conn: sa.Connection, old: Sequence[bytes], primary: Key) -> None:
    """Every stored secret, from the files' keys to a numbered one. What no key opens stays as it is."""
    before = MultiFernet([Key(0, secret).fernet for secret in old])

    def change(text: str) -> str | None:
        try:
            return f"{primary.number}.{primary.fernet.encrypt(before.decrypt(text)).decode()}"
        except InvalidToken:
            return None
    vault.rewrite(conn, change)


def remove(folder: Path, known: Mapping[str, Sequence[bytes]]) -> bool:
    """Remove the files whose keys the database holds now. False: some are another cloud's, and stay."""
    clean = True
    for purpose, name in FOLDERS.items():
        for number in _numbers(folder / name):
            file = folder / name / str(number)
            if _secret(file) in known.get(purpose, ()):
                file.unlink()
            else:
                clean = False
        if clean and (folder / name).is_dir():
            shutil.rmtree(folder / name)
    return clean


def _numbers(folder: Path) -> list[int]:
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []


def _secret(file: Path) -> bytes:
    try:
        text = file.read_bytes().strip()
        Fernet(text)
    except (OSError, ValueError) as error:
        raise SealError(f"{file} holds no key: {error}. Restore it, or move it away: what it encrypted is lost "
                        "then.") from None
    return base64.urlsafe_b64decode(text)
