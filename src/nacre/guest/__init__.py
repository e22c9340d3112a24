"""The tiny guest: a real Linux of some 20 MB, made from the distribution's own packages on the user's machine."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from nacre.base.errors import Unavailable

HERE = Path(__file__).parent
BUILD_SECONDS = 900


class GuestImages(msgspec.Struct, frozen=True, kw_only=True):
    """disk: boots by itself (qcow2). kernel, initrd, root: the same in three parts."""

    kernel: Path
    initrd: Path
    root: Path
    disk: Path


async def build(out: Path, progress: Callable[[str], None] = lambda line: None) -> GuestImages:
    """Makes the images in `out`, or finds them there, made by these very scripts. progress: hears what goes on. Needs
    the distribution's package tools and the network the first time, no root. Raises Unavailable with the end of the
    build's own words."""
    images = GuestImages(kernel=out / "tiny-vmlinuz", initrd=out / "tiny-initrd.gz", root=out / "tiny-root.qcow2",
                         disk=out / "tiny-disk.qcow2")
    mark, version = out / "tiny-version", _version()
    files = (images.kernel, images.initrd, images.root, images.disk)
    if _is(mark, version) and all(file.exists() for file in files):
        return images
    await asyncio.to_thread(out.mkdir, parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        "bash", str(HERE / "build.sh"), str(out), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT)
    said: list[str] = []
    try:
        async with asyncio.timeout(BUILD_SECONDS):
            assert process.stdout is not None
            async for line in process.stdout:
                said.append(text := line.decode(errors="replace").rstrip())
                if text.startswith("* "):
                    progress(text[2:])
            code = await process.wait()
    except TimeoutError:
        raise Unavailable(f"The tiny guest was not built within {BUILD_SECONDS} s.") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code:
        raise Unavailable("The tiny guest could not be built: " + "; ".join(said[-5:]))
    await asyncio.to_thread(mark.write_text, version)
    return images


def _version() -> str:
    """Changes with the scripts: a guest made by older ones is made again."""
    digest = hashlib.sha256()
    for file in sorted(f for f in HERE.rglob("*") if f.is_file() and "__pycache__" not in f.parts):
        if file.suffix != ".py":
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def _is(mark: Path, version: str) -> bool:
    return mark.exists() and mark.read_text() == version
