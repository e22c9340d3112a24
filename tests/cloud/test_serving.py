"""How a server ends: it says so, goes on for a while, finishes what has begun, and closes what is idle."""

import http.client
import socket
import ssl
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nacre.base.serving import certificates
from nacre.base.serving.server import HANDSHAKE
from tests.cloud.serving_lab import ROOT, server

pytestmark = pytest.mark.processes


def test_it_drains_before_it_ends(tmp_path: Path) -> None:
    with server(tmp_path, drain=1.0) as one:
        kept, idle = one.connect(), one.connect()
        assert one.get("/healthcheck", kept) == (200, "OK\n", "") == one.get("/healthcheck", idle)
        under_way = one.connect()
        under_way.request("GET", "/app/slow?seconds=0.5")
        time.sleep(0.1)
        one.signal()
        time.sleep(0.2)
        assert under_way.getresponse().getheader("connection") == "close"
        assert one.get("/app/fast", kept) == (200, '{"by":"one"}', "close"), "a kept connection is served once more"
        assert one.get("/healthcheck") == (503, "This control is about to end.\n", "close"), "a new one is, too"
        assert idle.sock is not None and idle.sock.recv(1) == b"", "closed in the end, without a byte"
        assert one.end() < 1
        assert "ended in order" in one.said() and "Traceback" not in one.said()
        with pytest.raises(ConnectionRefusedError):
            one.get("/app/fast")


def test_what_has_begun_is_finished(tmp_path: Path) -> None:
    with server(tmp_path, drain=0.3) as one:
        got: list[tuple[int, str, str]] = []
        slow = threading.Thread(target=lambda: got.append(one.get("/app/slow?seconds=1.5")))
        upload = socket.create_connection(("127.0.0.1", one.port))
        upload.sendall(b"POST /app/sum HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12345")
        headers = socket.create_connection(("127.0.0.1", one.port))
        headers.sendall(b"GET /app/fast HTTP/1.1\r\nho")
        slow.start()
        time.sleep(0.2)
        one.signal()
        time.sleep(0.8)  # it listens no more
        upload.sendall(b"67890")
        headers.sendall(b"st: x\r\n\r\n")
        for each, body in ((upload, b'"size":10'), (headers, b'{"by":"one"}')):
            answer = b"".join(iter(lambda each=each: each.recv(4096), b""))
            assert answer.startswith(b"HTTP/1.1 200") and b"connection: close" in answer and body in answer
        slow.join()
        assert got == [(200, '{"by":"one"}', "close")]
        assert one.end() < 1


def test_a_silent_client_of_tls_does_not_keep_it(tmp_path: Path) -> None:
    authority = certificates.new_authority(datetime.now(UTC))
    (tmp_path / "server.pem").write_bytes(certificates.issue(authority, {"127.0.0.1"}, datetime.now(UTC)))
    trust = ssl.create_default_context(cadata=certificates.public_part(authority).decode())
    with server(tmp_path, drain=0.2) as one:
        kept = http.client.HTTPSConnection("127.0.0.1", one.port, timeout=20, context=trust)
        assert one.get("/app/fast", kept)[0] == 200
        begun = socket.create_connection(("127.0.0.1", one.port))  # says nothing at all
        one.signal()
        assert one.end() < HANDSHAKE + 3, "it does not wait for the client's farewell"
        begun.close()
        kept.close()


def test_without_draining_it_ends_at_once(tmp_path: Path) -> None:
    with server(tmp_path) as one:
        kept = one.connect()
        one.get("/app/fast", kept)
        one.signal()
        assert one.end() < 1


def test_a_second_signal_ends_the_draining(tmp_path: Path) -> None:
    with server(tmp_path, drain=20.0) as one:
        one.signal()
        time.sleep(0.2)
        assert one.process.poll() is None
        one.signal()
        assert one.end() < 1


def test_a_database_that_is_away_is_seen_by_balancers(tmp_path: Path) -> None:
    with server(tmp_path) as one:
        assert one.get("/healthcheck")[0] == 200
        (tmp_path / "one.away").touch()
        time.sleep(1.1)
        assert one.get("/healthcheck") == (503, "The database does not answer.\n", "")
        (tmp_path / "one.away").unlink()
        assert one.get("/healthcheck")[0] == 200


def test_all_addresses_are_those_of_both_families(tmp_path: Path) -> None:
    with server(tmp_path, host="::") as one:
        assert one.get("/app/fast")[0] == 200
        six = http.client.HTTPConnection("::1", one.port, timeout=5)
        six.request("GET", "/app/fast")
        assert six.getresponse().status == 200


def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    with server(tmp_path) as one:
        other = subprocess.run(
            [sys.executable, "-m", "tests.cloud.serving_lab", "127.0.0.1", str(one.port), "0", "other"],
            env={"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}, capture_output=True, text=True, timeout=20, check=False)
        assert f"127.0.0.1:{one.port} cannot be listened on: Address already in use" in other.stderr
