"""Small files that a process must find whole when it comes back, after whatever ended it or its machine."""

import contextlib
import os
import tempfile
import time
from pathlib import Path

#: Seconds after which what a writer left unfinished is nobody's.
LEFT = 600.0


def write_whole(path: Path, data: bytes | str, mode: int = 0o600) -> None:
    """Replace a file, whole or not at all, and on the disk when this returns. Only its owner may read it unless `mode`
    says otherwise. Several may write it at once: the last counts. Raises OSError: it is as it was."""
    _sweep(path)
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _sweep(path: Path) -> None:
    """Parts of this file go whose writers were ended in the middle of it."""
    for each in os.scandir(path.parent):
        if each.name.startswith(f".{path.name}.") and each.name.endswith(".part"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - each.stat().st_mtime > LEFT:
                    os.unlink(each.path)
