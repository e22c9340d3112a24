"""What uploaded data really is, asked of a process that can do nothing but read what it is sent: whatever data does to
its parser, it does there. Run as a module, it is the process of which each upload's is forked: that takes two
milliseconds, a start of Python a hundred times as much.
"""

import contextlib
import ctypes
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence

import msgspec

from nacre.base.errors import Unavailable, UnsupportedMedia
from nacre.base.image_formats import ARCHIVES, SLICE, WHOLE, Inspected, Inspector
from nacre.base.shell import MB, renounce, syscalls

#: What the process of an upload may use: bytes of address space, seconds of processor time for one slice and in all. A
#: TiB that never settles what it is takes minutes.
MEMORY, CPU, IN_ALL = 512 * MB, 20, 3600
#: Seconds until an answer is given up: many times CPU, of a machine with other work.
PATIENCE = 120.0
#: Seconds without an upload after which the process that the others are forked of ends: it has 16 MB of its own.
IDLE = 60.0
#: What stands before a slice: there are more, or it is the last. And the answer to one that settles nothing.
DATA, LAST, MORE = b"d", b"e", b"+"
#: What is said of a process that ended without a verdict: by itself, or by a limit of its own; or because the machine
#: lacks something: it could not be forked or confined (the reason follows), or it was killed, as the kernel does where
#: memory runs out.
ENDED, LACK = b"-", b"!"
#: Linux: what a process asks for that is to end with the one it was forked of.
PR_SET_PDEATHSIG = 1
#: All that the processes get of our environment: none of its secrets.
ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG")
NOBODY = 65534
TOO_MUCH = "The image data is refused: to inspect it took more memory or time than it may."
NOT_NOW = "Image data cannot be inspected now. Try again, or ask the operator."


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the process says: what the data is, or why it is refused."""

    found: Inspected | None = None
    refused: str = ""


class Nursery:
    """The process that the others are forked of, which end with it. It is started with an upload, and ends when none
    has come for a while, or with this process."""

    def __init__(self, command: Sequence[str] = (sys.executable, "-P", "-m", __name__)):
        self._command, self._lock = list(command), threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._door: socket.socket | None = None

    def begin(self, declared: str, container: str) -> socket.socket:
        """The way to a new process. Raises Unavailable; its details say what the machine lacks."""
        for _ in range(2):  # it may have ended since the last one
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            door = None
            try:
                with theirs:
                    door = self._open()
                    socket.send_fds(door, [f"{declared} {container}".encode()], [theirs.fileno()])
                ours.settimeout(PATIENCE)
                if (answer := ours.recv(SLICE)) == MORE:
                    return ours
            except OSError:
                answer = b""
            ours.close()
            if answer:  # the nursery is well, and has no process for this one
                break
            if door is not None:
                self.close(door)
        raise Unavailable(NOT_NOW, details=answer.removeprefix(LACK).decode(errors="replace"))

    def close(self, door: socket.socket | None = None) -> None:
        """Ends it; the next upload starts another. door: only if it is still the one behind this door: many find at
        once that one has ended, and what the first of them started serves the others."""
        with self._lock:
            if door is not None and door is not self._door:
                return
            if self._door is not None:
                self._door.close()
            if self._process is not None:
                self._process.kill()
                self._process.wait()
            self._door = self._process = None

    def _open(self) -> socket.socket:
        with self._lock:
            if self._door is None:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    self._process = subprocess.Popen(
                        self._command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL,
                        start_new_session=True,  # a terminal's interrupt is for us, who let uploads end
                        env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ})
                threading.Thread(target=self._process.wait, daemon=True).start()  # else it stays a zombie
                self._door = ours
            return self._door


#: One serves all of this process, as the interpreter does: it knows nothing of any cloud.
NURSERY = Nursery()


class Apart:
    """An `Inspector` in a process of its own, which is there from the first slice until the verdict. All verbs
    block."""

    def __init__(self, declared: str, container: str = "bare", nursery: Nursery | None = None):
        self._declared, self._container, self._nursery = declared, container, nursery or NURSERY
        self._buffer, self._lock = bytearray(), threading.Lock()
        self._talk: socket.socket | None = None
        self._verdict: Verdict | None = None
        self._lost = False

    @property
    def settled(self) -> bool:
        """Whether more data can change nothing: the process has ended."""
        return self._verdict is not None

    def feed(self, data: bytes) -> None:
        """The next bytes, in any cut. Raises Unavailable."""
        with self._lock:
            if self._verdict is None:
                self._buffer += data
            while len(self._buffer) >= SLICE and self._verdict is None:
                self._ask(DATA, self._buffer[:SLICE])
                del self._buffer[:SLICE]
            if self._verdict is not None:
                self._buffer.clear()

    def finish(self, size: int) -> Inspected:
        """The verdict on data of so many bytes, of which all was fed that matters. Raises UnsupportedMedia: not what
        was declared, or not safe; Unavailable."""
        with self._lock:
            verdict = self._verdict or self._ask(LAST, self._buffer)
        if verdict is None or (found := verdict.found) is None:
            raise UnsupportedMedia(verdict.refused if verdict else TOO_MUCH, field="disk_format")
        whole = self._declared in WHOLE and self._container not in ARCHIVES
        return msgspec.structs.replace(found, size=size, virtual_size=size if whole else found.virtual_size)

    def close(self) -> None:
        """Ends the process, if it is there, and for good: at once, whatever it does. Waits for nothing, and may be
        repeated. A verb that is at work raises Unavailable."""
        self._lost = True
        if (talk := self._talk) is not None:
            with contextlib.suppress(OSError):  # it has ended just now
                talk.shutdown(socket.SHUT_RDWR)
        if self._lock.acquire(blocking=False):  # else the verb hangs up
            self._hang_up()
            self._lock.release()

    def _hang_up(self) -> None:
        if self._talk is not None:
            self._talk.close()
            self._talk = None

    def _ask(self, kind: bytes, data: bytes | bytearray) -> Verdict | None:
        """Sends a slice. The verdict, if it is known now. Raises Unavailable, and from then on always."""
        if self._talk is None and not self._lost:
            self._talk = self._nursery.begin(self._declared, self._container)
        if self._lost or self._talk is None:  # maybe closed meanwhile
            self._hang_up()
            raise Unavailable(NOT_NOW)
        if (answer := _heard(self._talk, kind + data)) == MORE:
            return None
        self._hang_up()
        try:
            self._verdict = Verdict(refused=TOO_MUCH) if answer == ENDED else msgspec.json.decode(answer, type=Verdict)
        except msgspec.DecodeError:
            if answer not in (b"", LACK):  # of a process that its data has taken over
                self._verdict = Verdict(refused=TOO_MUCH)
                return self._verdict
            self._lost = True
            raise Unavailable(NOT_NOW) from None
        return self._verdict


def _heard(talk: socket.socket, frame: bytes | bytearray) -> bytes:
    """The answer to a slice. Nothing: there is none."""
    with contextlib.suppress(TimeoutError):
        with contextlib.suppress(ConnectionError):  # it has ended, and may have said how
            talk.send(frame)
        for _ in range(2):  # that our slice was not read is heard before what was said
            with contextlib.suppress(ConnectionError):
                return talk.recv(SLICE)
    return b""


def main() -> None:
    """Forks a process for each that is asked for, until nobody asks any more, and says of those that end how."""
    if syscalls() is None:
        print("uploads are inspected with limits, and without a filter of system calls: there is no libseccomp",
              file=sys.stderr)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    bell, ringer = socket.socketpair()
    ringer.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # it rings only
    signal.set_wakeup_fd(ringer.fileno(), warn_on_full_buffer=False)
    children: dict[int, socket.socket] = {}
    with socket.socket(fileno=0) as door:
        while True:
            ready = _events((bell, door), children.values())
            if bell in ready:
                bell.recv(SLICE)
                _bury(children)
            elif door in ready:
                wish, handles, _, _ = socket.recv_fds(door, 256, 1)
                if not wish:
                    return
                _bear(wish, socket.socket(fileno=handles[0]), (door, bell, ringer), children)
            elif ready:  # an upload has ended, and who was taken over by its data does not end by itself
                for child in [each for each, talk in children.items() if talk in ready]:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    children.pop(child).close()
            elif not children:
                return


def _events(own: Iterable[socket.socket], talks: Iterable[socket.socket]) -> list[socket.socket]:
    """Which of our own have something for us, and of which talks the other end is gone. Nothing: of none for long."""
    poll, ways = select.poll(), {each.fileno(): each for each in (*own, *talks)}
    for each in own:
        poll.register(each, select.POLLIN)
    for each in talks:
        poll.register(each, 0)
    return [ways[handle] for handle, _ in poll.poll(IDLE * 1000)]


def _bear(wish: bytes, talk: socket.socket, own: tuple[socket.socket, ...], children: dict[int, socket.socket]) -> None:
    """Forks the process of one upload, which has nothing of ours and of the others'; says so where that fails."""
    try:
        child = os.fork()
    except OSError as error:
        _say(talk, LACK + f"no process can be started: {error}".encode())
        return
    if child:
        children[child] = talk
        return
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for each in (*own, *children.values()):
            each.close()
        os.dup2(1, 2)  # what control writes its log to is none of its business
        _serve(talk, *wish.decode().split(" "))
    finally:  # without a traceback for each image that breaks it
        os._exit(0)


def _bury(children: dict[int, socket.socket]) -> None:
    """Says how those ended that have. After a verdict nobody listens any more."""
    while children:
        child, status, used = os.wait4(-1, os.WNOHANG)
        if not child:
            return
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        _say(children.pop(child), LACK if killed and used.ru_utime + used.ru_stime < IN_ALL else ENDED)


def _say(talk: socket.socket, what: bytes) -> None:
    """Without waiting: a process that its data has taken over may have filled the way before it ended."""
    with talk, contextlib.suppress(OSError):
        talk.send(what, socket.MSG_DONTWAIT)


def _serve(talk: socket.socket, declared: str, container: str) -> None:
    """Gives up all that it does not need, and only then reads."""
    inspector = Inspector(declared, container)
    try:
        renounce(memory=MEMORY)
    except OSError as error:  # a kernel that takes no filter
        talk.send(LACK + f"the inspecting process cannot be confined: {error}".encode())
        return
    _may_take(0)  # from now on nobody here sets the second limit up, whoever is in here
    talk.send(MORE)
    while frame := talk.recv(SLICE + 1):
        _may_take(time.process_time())
        inspector.feed(frame[1:])
        if frame[:1] == LAST or inspector.settled:
            talk.send(msgspec.json.encode(_verdict(inspector)))
            return
        talk.send(MORE)


def _may_take(used: float) -> None:
    """Seconds of processor time, from so many on: CPU for this slice, then it is ended, which data that has taken over
    its parser may prevent; at IN_ALL it is killed, which nothing prevents."""
    resource.setrlimit(resource.RLIMIT_CPU, (min(int(used) + CPU, IN_ALL), IN_ALL + 1))


def _verdict(inspector: Inspector) -> Verdict:
    try:
        return Verdict(found=inspector.finish())
    except UnsupportedMedia as error:
        return Verdict(refused=error.message)


if __name__ == "__main__":
    main()
