"""Running other programs: a list of arguments, a time limit, a memory limit, an output limit. Never a shell string."""

import asyncio
import os
import pwd
import resource
import tempfile
from collections.abc import Sequence
from typing import BinaryIO

import msgspec

from nacre.base.errors import NacreError

MB = 1 << 20


class CommandFailed(NacreError):
    """A program ended with an error, ran too long, or said too much. The message carries the end of what it said."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a program may use. Seconds of wall time, bytes of address space (None: unlimited), of output, and of a file
    that it writes (None: unlimited)."""

    seconds: float = 30.0
    memory: int | None = None
    output: int = 16 * MB
    file: int | None = None


async def run(args: Sequence[str], *, limits: Limits = Limits(), stdin: bytes | BinaryIO | None = None,
              user: str | None = None, ok: tuple[int, ...] = (0,)) -> bytes:
    """The program's standard output.

    args: the program and its arguments; stdin: what it reads, or an open file; user: run as this account (needs root);
    ok: exit codes that are no error.
    Raises CommandFailed.
    """

    account = pwd.getpwnam(user) if user is not None else None

    def confine() -> None:
        if limits.memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
        if limits.file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file, limits.file))
        if account is not None:  # here, and not by the loop: uvloop cannot
            os.setgroups([])
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)

    process = await asyncio.create_subprocess_exec(
        *args, stdin=asyncio.subprocess.PIPE if isinstance(stdin, bytes) else stdin or asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        preexec_fn=confine if account is not None or (limits.memory, limits.file) != (None, None) else None)
    try:
        async with asyncio.timeout(limits.seconds):
            out, err = await process.communicate(stdin if isinstance(stdin, bytes) else None)
    except TimeoutError:
        raise CommandFailed(f"{args[0]} did not end within {limits.seconds:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if len(out) > limits.output:
        raise CommandFailed(f"{args[0]} wrote more than {limits.output} bytes")
    if process.returncode not in ok:
        said = (err or out)[-2000:].decode(errors="replace").strip()
        raise CommandFailed(f"{' '.join(args[:3])} ... failed with code {process.returncode}: {said}")
    return out


async def start(args: Sequence[str], *, seconds: float = 60.0) -> None:
    """Runs a program that leaves daemons behind. They may keep what they got as standard output (and a pipe to it,
    which would never end), so that goes to a file. Raises CommandFailed with the end of what was said."""
    with tempfile.TemporaryFile() as said:
        process = await asyncio.create_subprocess_exec(
            *args, stdin=asyncio.subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            async with asyncio.timeout(seconds):
                await process.wait()
        except TimeoutError:
            raise CommandFailed(f"{args[0]} did not end within {seconds:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            said.seek(max(0, said.tell() - 2000))
            words = said.read().decode(errors="replace").strip()
            raise CommandFailed(f"{' '.join(args[:3])} ... failed with code {process.returncode}: {words}")
