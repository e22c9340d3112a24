"""What a user's image really is, asked of a process that can do nothing but read it: whatever an image does to its
parser, it does there. Run as a module, it is that process.
"""

import os
import sys
from pathlib import Path

import msgspec

from nacre.base.errors import BuildFailed, UnsupportedMedia
from nacre.base.image_formats import Inspected, inspect
from nacre.base.shell import CommandFailed, Limits, renounce, run

LIMITS = Limits(seconds=120, cpu=60, memory=1 << 30, output=1 << 16, file=0)


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the process says: what the file is, or why it is refused."""

    found: Inspected | None = None
    refused: str = ""


async def inspect_apart(download: Path, declared: str, account: tuple[int, int]) -> Inspected:
    """The verdict of a process that runs as this account (uid and gid, where we are root). Raises UnsupportedMedia;
    BuildFailed: it came to none."""
    with download.open("rb") as file:
        try:
            said = await run([sys.executable, "-P", "-m", __name__, declared, *map(str, account)], limits=LIMITS,
                             stdin=file)
        except CommandFailed as error:
            raise BuildFailed(f"the image cannot be inspected: {error.message}") from error
    verdict = msgspec.json.decode(said, type=Verdict)
    if verdict.found is None:
        raise UnsupportedMedia(verdict.refused, field="disk_format")
    return verdict.found


def main(declared: str, uid: int, gid: int) -> None:
    """Gives up all that it does not need, and only then looks."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    renounce(memory=LIMITS.memory or 0)
    try:
        verdict = Verdict(found=inspect(sys.stdin.buffer, declared))
    except UnsupportedMedia as error:
        verdict = Verdict(refused=error.message)
    sys.stdout.buffer.write(msgspec.json.encode(verdict))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
