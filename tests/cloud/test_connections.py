"""Clients that send without end, or never: what they cost a server is bounded, and another does not notice."""

import contextlib
import http.client
import socket
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from nacre.base.serving import certificates
from tests.cloud.serving_lab import Server, server

pytestmark = pytest.mark.processes
MB = 1 << 20


@contextlib.contextmanager
def told(one: Server, first: bytes = b"") -> Iterator[socket.socket]:
    made = socket.create_connection(("127.0.0.1", one.port), 5)
    made.settimeout(8)
    try:
        made.sendall(first)
        yield made
    finally:
        made.close()


def rest(made: socket.socket) -> bytes:
    """All that comes until the other side ends it."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while got := made.recv(65536):
            found += got
    return found


def rss(one: Server) -> int:
    return int(psutil.Process(one.process.pid).memory_info().rss)


def connections(one: Server) -> int:
    """How many the server has, those included that it has closed and still has something to send to."""
    return sum(bool(each.raddr) for each in psutil.Process(one.process.pid).net_connections("tcp"))


@pytest.mark.parametrize("begin", [
    b"GET /app/fast HTTP/1.1\r\nhost: x\r\nx-endless: ", b"GET /app/fast?", b"\r\n",
    b"POST /app/sum HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1;ext=",
    b"POST /app/sum HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx-trailer: "],
    ids=["header", "line", "blank", "chunk", "trailer"])
def test_a_head_without_end(tmp_path: Path, begin: bytes) -> None:
    with server(tmp_path) as one:
        assert one.get("/app/fast")[0] == 200
        before, sent, slowest = rss(one), 0, 0.0
        more = b"\r\n" * 2048 if begin == b"\r\n" else b"a" * 4096
        with told(one, begin) as made, contextlib.suppress(ConnectionError):
            while sent < 64 * MB:
                made.sendall(more)
                sent += len(more)
                if sent % MB == 0:
                    at = time.monotonic()
                    assert one.get("/app/fast")[0] == 200
                    slowest = max(slowest, time.monotonic() - at)
        assert sent < 16 * MB, "refused, and not read on"
        assert rss(one) - before < 20 * MB and slowest < 1


def test_many_headers_are_one_head(tmp_path: Path) -> None:
    with server(tmp_path) as one:
        head = b"GET /app/fast HTTP/1.1\r\nhost: x\r\n" + b"x-one: 1234567890\r\n" * 3000 + b"\r\n"
        with told(one, head) as made:
            assert rest(made).startswith(b"HTTP/1.1 431")
        head = b"GET /app/fast HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: " + b"y" * 30000 + b"\r\n\r\n"
        with told(one, head) as made:
            assert rest(made).startswith(b"HTTP/1.1 200")


def test_a_head_and_an_idle_connection_have_their_time(tmp_path: Path) -> None:
    with server(tmp_path, head_seconds=1.0, idle=2) as one:
        begin = time.monotonic()
        with told(one) as silent, told(one, b"GET /app/fast HTTP/1.1\r\nho") as half, told(
                one, b"GET /app/fast HTTP/1.1\r\nhost: x\r\n\r\n") as idle:
            assert rest(silent) == rest(half) == b"" and 0.9 < time.monotonic() - begin < 2
            assert rest(idle).startswith(b"HTTP/1.1 200") and 1.8 < time.monotonic() - begin < 3.5
        begin = time.monotonic()
        with told(one, b"GET /app/slow?seconds=3 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n") as slow:
            assert rest(slow).startswith(b"HTTP/1.1 200"), "an answer takes the time that it takes"
        drip = b"GET /app/fast HTTP/1.1\r\nhost: x\r\n"
        with told(one) as made, contextlib.suppress(ConnectionError):
            for byte in drip:
                made.sendall(bytes([byte]))
                time.sleep(0.2)
            pytest.fail("a byte now and then is no request")


def test_half_open_connections_are_counted(tmp_path: Path) -> None:
    with server(tmp_path, of_one=50, head_seconds=60.0) as one, contextlib.ExitStack() as stack:
        halves = [stack.enter_context(told(one, b"GET /app/fast HTTP/1.1\r\n")) for _ in range(200)]
        assert one.get("/app/fast")[0] == 200, "a new one is served"
        bodies = [stack.enter_context(told(
            one, b"POST /app/sum HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx")) for _ in range(200)]
        assert one.get("/app/fast")[0] == 200
        time.sleep(0.3)
        open_now = [c for c in psutil.Process(one.process.pid).net_connections("tcp") if c.status == "ESTABLISHED"]
        assert len(open_now) <= 101, len(open_now)
        bodies[0].sendall(b"12345678")
        assert bodies[0].recv(4096).startswith(b"HTTP/1.1 200"), "the first ones go on"
        halves.clear()


def trusted(folder: Path) -> ssl.SSLContext:
    """A server that is started in the folder speaks TLS from now on, to a client of this."""
    authority = certificates.new_authority(datetime.now(UTC))
    (folder / "server.pem").write_bytes(certificates.issue(authority, {"127.0.0.1"}, datetime.now(UTC)))
    return ssl.create_default_context(cadata=certificates.public_part(authority).decode())


@pytest.mark.parametrize(("path", "more", "tls"), [
    ("much", b"", False), ("much", b"connection: close\r\n", False), ("stream", b"", False), ("much", b"", True),
    ("much", b"connection: close\r\n", True), ("stream", b"", True)],
    ids=["kept", "closing", "stream", "kept tls", "closing tls", "stream tls"])
def test_an_answer_that_nobody_reads_has_its_time(tmp_path: Path, path: str, more: bytes, tls: bool) -> None:
    trust = trusted(tmp_path) if tls else None
    with server(tmp_path, unread=2, idle=1) as one, contextlib.ExitStack() as stack:
        for _ in range(3):
            made = stack.enter_context(told(one))
            if trust:
                made = stack.enter_context(trust.wrap_socket(made, server_hostname="127.0.0.1"))
            made.sendall(f"GET /app/{path} HTTP/1.1\r\nhost: x\r\n".encode() + more + b"\r\n")
        end = time.monotonic() + 15
        while connections(one) < 3:
            assert time.monotonic() < end
            time.sleep(0.05)
        while connections(one):
            assert time.monotonic() < end, "they stay, with all that is unsent"
            time.sleep(0.1)
        new = http.client.HTTPSConnection("127.0.0.1", one.port, timeout=8, context=trust) if trust else one.connect()
        assert one.get("/app/fast", new)[0] == 200
        new.close()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_who_takes_a_little_of_an_answer_now_and_then_gets_it_all(tmp_path: Path, tls: bool) -> None:
    """Its window is small, and closed nearly all the time."""
    trust, slowest = trusted(tmp_path) if tls else None, 0.0
    with server(tmp_path, unread=2, idle=1) as one, socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1448)
        made.settimeout(8)
        made.connect(("127.0.0.1", one.port))
        reader = trust.wrap_socket(made, server_hostname="127.0.0.1") if trust else made
        reader.sendall(b"GET /app/much HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        begin, got = time.monotonic(), 0
        with contextlib.suppress(ConnectionResetError), reader:
            last = time.monotonic()
            while more := reader.recv(4096 if last < begin + 8 else MB):
                got += len(more)
                time.sleep(0.2 if last < begin + 8 else 0)
                slowest, last = max(slowest, time.monotonic() - last), time.monotonic()
        assert got > 16 * MB or slowest > 1, "but for a machine that stood still"


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_answers_that_nobody_reads_are_bounded(tmp_path: Path, tls: bool) -> None:
    """Each is of 16 MiB, and asked for several times over one connection."""
    trust = trusted(tmp_path) if tls else None
    with server(tmp_path, unread=45, unread_bytes=256 * MB) as one, contextlib.ExitStack() as stack:
        def get(path: str) -> int:
            new = http.client.HTTPSConnection("127.0.0.1", one.port, timeout=8, context=trust) if trust else None
            return one.get(path, new)[0]

        def ask() -> socket.socket:
            made = stack.enter_context(told(one))
            if trust:
                made = stack.enter_context(trust.wrap_socket(made, server_hostname="127.0.0.1"))
            made.sendall(b"GET /app/much HTTP/1.1\r\nhost: x\r\n\r\n" * 5)
            return made

        assert get("/app/fast") == 200
        before, many = rss(one), [ask() for _ in range(30)]
        answers = Counter(made.recv(12)[9:] for made in many)
        assert 0 < answers[b"200"] <= 10 and answers[b"503"] >= 20, answers
        assert rss(one) - before < 256 * MB
        end = time.monotonic() + 15
        while "too much is unread" not in one.said():
            assert time.monotonic() < end
            time.sleep(0.05)
        while (status := get("/app/much")) != 200:
            assert status == 503 and time.monotonic() < end, "who took nothing gives way"
            time.sleep(0.1)


def test_many_that_read_steadily_are_sent_all(tmp_path: Path) -> None:
    """Together they have less memory than one part each, of a MiB, would take."""
    def read(made: socket.socket, until: float) -> bool:
        while time.monotonic() < until:
            if not made.recv(65536):
                return False
            time.sleep(0.02)
        return True

    with server(tmp_path, unread_bytes=20 * MB) as one, contextlib.ExitStack() as stack, ThreadPoolExecutor(24) as pool:
        many = [stack.enter_context(told(one, b"GET /app/stream HTTP/1.1\r\nhost: x\r\n\r\n")) for _ in range(24)]
        assert all(pool.map(read, many, [time.monotonic() + 4] * 24))
        assert "a connection is closed" not in one.said()
