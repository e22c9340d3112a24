"""Uploads are looked at in a process of their own: real forks, real limits."""

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from nacre.base import image_formats
from nacre.base.errors import Unavailable, UnsupportedMedia
from nacre.base.image_formats import SLICE, Inspected
from nacre.base.shell import run
from nacre.image.data import inspection
from nacre.image.data.inspection import Apart, Nursery

MB = 1 << 20


@contextmanager
def nursery(evil: str, idle: float = 60, more: str = "") -> Iterator[Nursery]:
    """One whose processes do this before they look at what they are fed. born: how many of them there were; more: what
    is done before the first."""
    code = (f"import ctypes, gc, mmap, os, resource, socket, stat, time, {inspection.__name__} as i\n"
            "fork, born = os.fork, []\n"
            "def bear():\n"
            "    born.append(1)\n"
            "    return fork()\n"
            "os.fork = bear\n"
            "libc = ctypes.CDLL(None)\n"
            "def call(name, *args):\n"
            "    number = i.syscalls().seccomp_syscall_resolve_name(name.encode())\n"
            "    if libc.syscall(number, *args) < 0:\n"
            "        raise OSError\n"
            "def is_socket(fd):\n"
            "    try:\n"
            "        return stat.S_ISSOCK(os.fstat(fd).st_mode)\n"
            "    except OSError:\n"
            "        return False\n"
            "def say(what):\n"
            "    for each in gc.get_objects():\n"
            "        if isinstance(each, socket.socket) and each.fileno() >= 0:\n"
            "            each.send(what, socket.MSG_DONTWAIT)\n"
            "class Taken(i.Inspector):\n"
            "    def feed(self, data):\n"
            f"        {evil}\n"
            "        super().feed(data)\n"
            f"i.Inspector = Taken\ni.CPU = 1\ni.IDLE = {idle}\n{more}\ni.main()\n")
    with closing(Nursery([sys.executable, "-P", "-c", code])) as made:
        yield made


@pytest.fixture
def honest() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


def feed(apart: Apart, data: bytes, cut: int) -> Inspected:
    for at in range(0, len(data), cut):
        apart.feed(data[at:at + cut])
    return apart.finish(len(data))


@pytest.mark.parametrize("size", [0, 1, SLICE - 1, SLICE, SLICE + 1, 3 * MB + 7])
def test_plain_data_is_as_large_as_it_came(honest: Nursery, size: int) -> None:
    for cut in (1000, MB):
        found = feed(Apart("raw", nursery=honest), bytes(size), cut)
        assert found == Inspected(format="raw", size=size, virtual_size=size)
    assert feed(Apart("aki", "aki", honest), b"x" * size, MB).virtual_size is None


@pytest.mark.parametrize(("declared", "driver"), [("qcow2", "qcow2"), ("vmdk", "vmdk"), ("vhd", "vpc")])
async def test_verdicts_are_the_parsers_own(honest: Nursery, tmp_path: Path, declared: str, driver: str) -> None:
    await run(["qemu-img", "create", "-q", "-f", driver, f"{tmp_path}/disk", "64M"])
    data = (tmp_path / "disk").read_bytes()
    for cut in (700, SLICE, MB):
        found = feed(Apart(declared, nursery=honest), data, cut)
        assert found.format == declared and found.size == len(data) and (found.virtual_size or 0) >= 64 * MB
        with pytest.raises(UnsupportedMedia, match=f"but the data is {declared}"):
            feed(Apart("raw", nursery=honest), data, cut)


def test_a_verdict_ends_its_process(honest: Nursery) -> None:
    """However long the rest of the upload takes."""
    apart = Apart("raw", nursery=honest)
    apart.feed(bytes(SLICE - 1))
    assert apart._talk is None
    apart.feed(bytes(MB))
    assert apart._talk is None and apart.settled and apart.finish(SLICE - 1 + MB).size == SLICE - 1 + MB


@pytest.mark.parametrize("evil", ["bytearray(1 << 30)", "[None for _ in iter(int, 1)]", "os._exit(0)", "os.abort()"])
def test_whatever_data_does_to_its_parser_the_upload_is_refused(evil: str) -> None:
    with nursery(evil) as taken:
        began = time.monotonic()
        with pytest.raises(UnsupportedMedia, match="more memory or time"):
            feed(Apart("raw", nursery=taken), b"x" * MB, MB)
        assert time.monotonic() - began < 60


def test_a_parser_that_was_taken_over_reaches_nothing() -> None:
    """No file, no network, no other process, no program: whatever it tries fails, and it goes on to the honest verdict.
    Limits alone would let it signal and trace what runs as the same user, and delete and change what is the user's."""
    folder = tempfile.mkdtemp(prefix="nacre-parser-")
    kept = Path(folder, "kept")
    kept.touch()
    os.chmod(folder, 0o777)  # as root the parser is nobody, and shall be let in
    kept.chmod(0o666)
    acts = ["open('/etc/passwd')", f"open('{folder}/made', 'w')", "__import__('socket').socket()", "os.fork()",
            "os.close(2) or __import__('socket').socket()", "os.kill(os.getppid(), 0)", f"os.unlink('{kept}')",
            f"os.mkdir('{folder}/made')", f"os.truncate('{kept}', 0)", f"os.utime('{kept}')", "os.chdir('/')",
            "os.execv('/bin/true', ['true'])", "os.setpriority(os.PRIO_PROCESS, 0, 19)", "os.setsid()",
            "resource.prlimit(os.getppid(), resource.RLIMIT_CPU)", "mmap.mmap(-1, 4096, prot=7)",
            *(f"call({name!r}, {args})" for name, args in {
                "tkill": "os.getppid(), 0", "tgkill": "os.getppid(), os.getppid(), 0", "pidfd_open": "os.getppid(), 0",
                "rt_sigqueueinfo": "os.getppid(), 19, ctypes.byref((ctypes.c_int * 32)(19, 0, -1))",
                "ptrace": "0x4206, os.getppid(), 0, 0", "prctl": "3",
                "process_vm_readv": "os.getppid(), 0, 0, 0, 0, 0",
                "process_vm_writev": "os.getppid(), 0, 0, 0, 0, 0",
                "shutdown": "next(filter(is_socket, range(64))), 2"}.items())]
    tries = "".join(f"try:\n    {act}\n    done.append(1)\nexcept OSError:\n    pass\n" for act in acts)
    try:
        with nursery(f"done = []; exec({tries!r}); done and os._exit(0)") as taken:
            assert feed(Apart("raw", nursery=taken), b"x" * MB, MB).size == MB
        assert os.listdir(folder) == ["kept"]
    finally:
        shutil.rmtree(folder)


def test_it_has_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NACRE_DATABASE", "postgresql://canary")
    with nursery("'canary' in str(os.environ) and os._exit(0)") as taken:
        assert feed(Apart("raw", nursery=taken), b"x", 1).size == 1


def test_killed_it_is_there_again_for_the_next(honest: Nursery) -> None:
    assert feed(Apart("raw", nursery=honest), b"x", 1).size == 1
    assert honest._process is not None
    os.kill(honest._process.pid, signal.SIGKILL)
    honest._process.wait()
    assert feed(Apart("raw", nursery=honest), b"x", 1).size == 1
    with pytest.raises(Unavailable):
        feed(Apart("raw", nursery=Nursery(["false"])), b"x", 1)


def test_who_finds_it_gone_ends_not_what_another_started_since(
        honest: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    process, start, since = honest._open() and honest._process, honest._open, []
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    def late() -> socket.socket:
        monkeypatch.undo()
        door = start()
        assert feed(Apart("raw", nursery=honest), b"x", 1).size == 1
        since.append(honest._process)
        return door

    monkeypatch.setattr(honest, "_open", late)
    assert feed(Apart("raw", nursery=honest), b"x", 1).size == 1
    assert since == [honest._process] and since != [process]


def test_a_process_that_the_machine_killed_is_no_refusal() -> None:
    with nursery("data[:1] == b'k' and os.kill(os.getpid(), 9)") as taken:
        killed = Apart("raw", nursery=taken)
        for _ in range(2):  # and what comes after is not taken for the beginning
            with pytest.raises(Unavailable):
                feed(killed, b"k" * SLICE, MB)
        process = taken._process
        assert feed(Apart("raw", nursery=taken), b"x" * MB, MB).size == MB and taken._process is process


def test_after_a_loss_nothing_is_taken_for_the_beginning() -> None:
    """What a second process would be shown first is the middle of the data."""
    with nursery("len(born) == 1 and data[:1] == b'k' and os.kill(os.getpid(), 9)") as taken:
        lost = Apart("vhdx", nursery=taken)
        lost.feed(b"vhdxfile" + bytes(SLICE - 8))
        for _ in range(2):
            with pytest.raises(Unavailable):
                lost.feed(b"k" * SLICE)
        with pytest.raises(Unavailable):
            lost.finish(2 * SLICE)


def test_who_fills_the_way_and_ends_holds_up_nobody() -> None:
    """Its end is told on that same way, by the process that bears the others."""
    with nursery("exec('while data[:1] == b\\'k\\':\\n try: say(b\\'+\\')\\n except OSError: os._exit(0)')") as taken:
        full = Apart("raw", nursery=taken)
        full.feed(b"k" * SLICE)
        process, ended = taken._process, select.poll()
        assert full._talk is not None
        ended.register(full._talk, 0)
        assert ended.poll(10_000), "whoever bears the others hangs"
        assert feed(Apart("raw", nursery=taken), b"x" * MB, MB).size == MB and taken._process is process
        full.close()


@pytest.mark.parametrize("ends", ["before", "unread", "after"])
def test_what_a_process_said_at_its_end_is_heard(honest: Nursery, ends: str) -> None:
    """Also where the next slice finds it gone, or was sent and never read: that is no reason to try again."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    class Talk(socket.socket):
        def send(self, *args: Any) -> int:
            sent = super().send(*args)
            theirs.close()
            return sent

    apart = Apart("raw", nursery=honest)
    apart._talk = Talk(fileno=ours.detach())
    theirs.send(inspection.ENDED)
    if ends == "unread":
        apart._talk.send(b"d")
    elif ends == "before":
        theirs.close()
    with pytest.raises(UnsupportedMedia, match="more memory or time"):
        feed(apart, b"x" * SLICE, SLICE)


def test_a_process_has_nothing_of_the_others() -> None:
    """One way, its own: not that of another's upload, nor those on which it was asked for."""
    with nursery("sum(map(is_socket, range(64))) == 1 or os._exit(0)") as taken:
        other = Apart("vhdx", nursery=taken)
        other.feed(b"vhdxfile" + bytes(SLICE - 8))
        assert feed(Apart("raw", nursery=taken), b"x" * MB, MB).size == MB
        other.close()


def parsers(taken: Nursery) -> list[psutil.Process]:
    assert taken._process is not None
    return psutil.Process(taken._process.pid).children()


def ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def within(seconds: float, true: Callable[[], object]) -> bool:
    """It was true once: what is asked again may have passed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("says", ["pass", "say(b'+')", "say(b'{\"refused\": \"x\"}')"])
def test_a_parser_that_was_taken_over_does_not_outlive_its_upload(says: str) -> None:
    """Whether it is asked something or not, and after its verdict too."""
    with nursery(f"exec({says!r}); time.sleep(1000)") as taken:
        apart, refused = Apart("raw", nursery=taken), list[Exception]()

        def upload() -> None:
            try:
                apart.feed(b"x" * SLICE)
                apart.finish(SLICE)
            except (Unavailable, UnsupportedMedia) as error:
                refused.append(error)

        work = threading.Thread(target=upload)
        work.start()
        assert within(60, lambda: refused or (taken._process and parsers(taken)))
        apart.close()
        work.join(30)
        assert refused and within(60, lambda: not parsers(taken))
        assert taken._process is not None and taken._process.poll() is None


@pytest.mark.parametrize("late", [False, True])
def test_for_an_upload_that_has_ended_no_parser_is_left(
        honest: Nursery, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    """late: it ends while the parser is born."""
    apart, begin = Apart("raw", nursery=honest), honest.begin

    def ends(declared: str, container: str) -> socket.socket:
        talk = begin(declared, container)
        apart.close()
        return talk

    if late:
        monkeypatch.setattr(honest, "begin", ends)
    else:
        apart.close()
    with pytest.raises(Unavailable):
        feed(apart, b"x", 1)
    assert apart._talk is None and (not late or within(60, lambda: not parsers(honest)))


def test_a_parser_that_was_taken_over_does_not_compute_for_ever() -> None:
    """It ignores the signal at the end of its time, and sets its own limit up as far as that goes."""
    acts = ("import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\ncpu = resource.RLIMIT_CPU\n"
            "for most in (resource.getrlimit(cpu)[1], resource.RLIM_INFINITY):\n"
            " try: resource.setrlimit(cpu, (most, most))\n except (OSError, ValueError): pass\n"
            "while True: pass")
    with (nursery(f"exec({acts!r})", more="i.IN_ALL = 1") as taken,
          pytest.raises(UnsupportedMedia, match="more memory or time")):
        feed(Apart("raw", nursery=taken), b"x", 1)


def test_a_parser_that_was_taken_over_does_not_outlive_control() -> None:
    with nursery("say(b'+') or time.sleep(1000)") as taken:
        apart = Apart("raw", nursery=taken)
        apart.feed(b"x" * SLICE)
        (parser,) = parsers(taken)
        taken.close()
        assert within(60, lambda: ended(parser))
        apart.close()


def test_an_upload_that_pauses_keeps_its_process() -> None:
    with nursery("pass", idle=0.05) as idle:
        apart = Apart("vhdx", nursery=idle)
        apart.feed(b"vhdxfile" + bytes(SLICE - 8))
        assert idle._process is not None
        with pytest.raises(subprocess.TimeoutExpired):
            idle._process.wait(0.5)
        apart.close()
        assert idle._process.wait(30) == 0


def test_a_terminals_interrupt_is_not_its_own(honest: Nursery) -> None:
    """It is for control, which lets the uploads end that it has."""
    assert feed(Apart("raw", nursery=honest), b"x", 1).size == 1 and honest._process is not None
    assert os.getpgid(honest._process.pid) != os.getpgid(0)


def test_where_no_process_can_be_forked_only_that_upload_fails() -> None:
    code = (f"import os, {inspection.__name__} as i\nfork, calls = os.fork, []\n"
            "def no():\n    calls.append(1)\n    if len(calls) == 2: raise BlockingIOError\n    return fork()\n"
            "os.fork = no\ni.main()\n")
    poor = Nursery([sys.executable, "-P", "-c", code])
    try:
        other = Apart("vhdx", nursery=poor)
        other.feed(b"vhdxfile" + bytes(SLICE - 8))
        process = poor._process
        with pytest.raises(Unavailable) as refused:
            feed(Apart("raw", nursery=poor), b"x", 1)
        assert "no process" in refused.value.details
        assert feed(Apart("raw", nursery=poor), b"x", 1).size == 1 and poor._process is process
        other.close()
    finally:
        poor.close()


def test_what_the_machine_lacks_is_said_to_operators() -> None:
    """A kernel that takes no filter of system calls: every upload is refused, and somebody has to know why."""
    with nursery("pass", more="def no(**_):\n    raise OSError(22, 'no filter here')\ni.renounce = no\n") as poor:
        with pytest.raises(Unavailable) as refused:
            feed(Apart("raw", nursery=poor), b"x", 1)
        assert "no filter here" in refused.value.details and "filter" not in refused.value.message


def test_without_uploads_nothing_is_there() -> None:
    with nursery("pass", idle=0.05) as idle:
        for _ in range(2):
            assert feed(Apart("raw", nursery=idle), b"x", 1).size == 1
            assert idle._process is not None and idle._process.wait(30) == 0


def test_nothing_is_parsed_where_requests_are_answered(monkeypatch: pytest.MonkeyPatch, honest: Nursery) -> None:
    monkeypatch.setattr(image_formats.Inspector, "feed", None)
    assert feed(Apart("raw", nursery=honest), b"x" * MB, MB).size == MB
