"""Running other programs: a list of arguments, a time limit, a memory limit, an output limit. Never a shell string."""

import asyncio
import ctypes
import errno
import functools
import mmap
import os
import pwd
import resource
import tempfile
from collections.abc import Sequence
from typing import BinaryIO

import msgspec

from nacre.base.errors import NacreError

MB = 1 << 20
#: What a process may ask of the kernel that looks at data: of what it has open, for memory, the time, and its end.
PARSING = (
    "read", "readv", "pread64", "recvfrom", "write", "writev", "sendto", "close", "lseek", "fstat", "newfstatat",
    "brk", "munmap", "mremap", "madvise", "futex", "getrandom", "sched_yield", "getrusage", "clock_gettime",
    "gettimeofday", "clock_nanosleep", "nanosleep", "restart_syscall", "getpid", "gettid", "getuid", "geteuid",
    "getgid", "getegid", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "exit", "exit_group")
#: libseccomp's actions and comparisons, by its header.
_REFUSE, _ALLOW, _EQUAL, _MASKED_EQUAL = 0x00050000, 0x7FFF0000, 4, 7


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
    nothing, writes into no file, sends no signal, changes no name or mode and has so many bytes of address space. What
    it has open stays. Where there is no libseccomp the limits hold alone (`syscalls` says so)."""
    library = syscalls()
    for limit, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_NOFILE, 0), (resource.RLIMIT_NPROC, 0),
                        (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (most, most))
    if library is not None:
        _allow_only(library)


@functools.cache
def syscalls() -> ctypes.CDLL | None:
    """libseccomp, by which a process gives up system calls; None: the machine has none. It is loaded when it is asked
    for first, which cannot be after the limits."""
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
    library.seccomp_load.argtypes = library.seccomp_release.argtypes = [ctypes.c_void_p]
    return library


class _Condition(ctypes.Structure):
    """libseccomp's scmp_arg_cmp: what one argument of a call must be."""

    _fields_ = (("argument", ctypes.c_uint), ("how", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def _allow_only(library: ctypes.CDLL) -> None:
    """From now on this process has the calls of a parser, and every other is refused (EPERM). It gets no privileges by
    a program either: without root the kernel takes no filter otherwise. Raises OSError where it takes none."""
    data = _Condition(2, _MASKED_EQUAL, mmap.PROT_EXEC, 0)  # memory that holds no program
    own = _Condition(0, _EQUAL, os.getpid(), 0)
    only = {"mmap": data, "mprotect": data, "kill": own, "tgkill": own, "prlimit64": _Condition(0, _EQUAL, 0, 0)}
    rules = library.seccomp_init(_REFUSE | errno.EPERM)
    try:
        for name in (*PARSING, *only):
            if (number := library.seccomp_syscall_resolve_name(name.encode())) < 0:
                continue  # this kind of processor has none of that name
            condition = only.get(name)
            _checked(library.seccomp_rule_add_array(
                rules, _ALLOW, number, int(condition is not None), condition and ctypes.byref(condition)))
        _checked(library.seccomp_load(rules))
    finally:
        library.seccomp_release(rules)


def _checked(code: int) -> None:
    if code:
        raise OSError(-code, "the filter of system calls")


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
