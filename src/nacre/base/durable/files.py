"""Small files that a process must find whole when it comes back, after whatever ended it or its machine."""

import os
from pathlib import Path


def write_whole(path: Path, data: bytes | str, mode: int = 0o600) -> None:
    """Replace a file, whole or not at all, and on the disk when this returns. Only its owner may read it unless `mode`
    says otherwise. Raises OSError: it is as it was."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
