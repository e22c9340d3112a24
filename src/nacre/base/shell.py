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
    """What a program may use. Seconds of wall time and of processor time, bytes of address space, of output, and of a
    file that it writes. None: unlimited."""

    seconds: float = 30.0
    cpu: int | None = None
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
    bounds = [(limit, most) for limit, most in ((resource.RLIMIT_AS, limits.memory), (resource.RLIMIT_CPU, limits.cpu),
                                                (resource.RLIMIT_FSIZE, limits.file)) if most is not None]

    def confine() -> None:
        for limit, most in bounds:
            resource.setrlimit(limit, (most, most))
        if account is not None:  # here, and not by the loop: uvloop cannot
            os.setgroups([])
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)

    process = await asyncio.create_subprocess_exec(
        *args, stdin=asyncio.subprocess.PIPE if isinstance(stdin, bytes) else stdin or asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        preexec_fn=confine if account is not None or bounds else None)
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


def renounce(*, memory: int) -> None:
    """For a process that looks at a stranger's data: from now on it opens nothing (no file, no connection), starts
    nothing, writes into no file and has so many bytes of address space. What it has open stays."""
    for limit, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_NOFILE, 0), (resource.RLIMIT_NPROC, 0),
                        (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (most, most))


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
