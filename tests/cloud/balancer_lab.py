"""haproxy in TCP mode before servers that are restarted in turn, and clients that count what fails.

It tries nothing twice: a connection that it gives to a server which does not listen is a failed request.
"""

import contextlib
import http.client
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from nacre.cli.supervisor import free_port

CONFIGURATION = """
global
  stats socket {socket} mode 600
defaults
  mode tcp
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  retries 0
frontend api
  bind 127.0.0.1:{port}
  default_backend controls
backend controls
  option httpchk GET /healthcheck
  http-check expect status 200
  default-server check inter 200ms fall 2 rise 1 {tls}
"""
#: Seconds until it has found out what every server is.
PATIENCE = 60.0


@dataclass(frozen=True)
class Balancer:
    """One that runs: where clients find it, and where it answers for itself."""

    port: int
    admin: Path

    def listens(self) -> bool:
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def wait(self, *without: str) -> None:
        """Until it gives requests to all servers but those named."""
        end = time.monotonic() + PATIENCE
        while not (states := self._states()) or {name for name in states if states[name] != "UP"} != {*without}:
            assert time.monotonic() < end, states
            time.sleep(0.05)

    def _states(self) -> dict[str, str]:
        with socket.socket(socket.AF_UNIX) as s, s.makefile("rw") as lines:
            s.connect(str(self.admin))
            print("show stat", file=lines, flush=True)
            rows = [line.split(",") for line in lines if line.startswith("controls,")]
        return {row[1]: row[17] for row in rows if row[1] != "BACKEND"}


@contextlib.contextmanager
def haproxy(folder: Path, servers: Mapping[str, int], *, tls: bool = False) -> Iterator[Balancer]:
    """servers: names and ports. Skips the test where haproxy is not installed."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        pytest.skip("haproxy is not installed")
    balancer, file = Balancer(free_port(), folder / "haproxy.sock"), folder / "haproxy.cfg"
    file.write_text(CONFIGURATION.format(
        port=balancer.port, socket=balancer.admin, tls="check-ssl verify none" if tls else "") + "".join(
        f"  server {name} 127.0.0.1:{at}\n" for name, at in servers.items()))
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([program, "-db", "-f", str(file)], stdout=log, stderr=log)
    try:
        while not balancer.listens():
            assert process.poll() is None, (folder / "haproxy.log").read_text()
            time.sleep(0.05)
        yield balancer
    finally:
        process.kill()
        process.wait()


#: What a client sees of a connection that was closed between two requests.
CLOSED = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, ssl.SSLEOFError)


class Clients:
    """Threads that send requests on kept connections. A connection that was used before and is found closed is opened
    anew, once, as every client does; anything else that is not the answer that was asked for is a failure."""

    def __init__(self, port: int, trust: ssl.SSLContext | None = None):
        self._port, self._trust = port, trust
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.failures: list[str] = []
        self.answers = self.reopened = 0

    def add(self, count: int, request: Callable[["Clients", http.client.HTTPConnection], int], pause: float = 0.0,
            wanted: int = 200) -> None:
        """request: sends one, and returns the status once the whole answer is read."""
        self._threads += [threading.Thread(target=self._run, args=(request, pause, wanted)) for _ in range(count)]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def _connect(self) -> http.client.HTTPConnection:
        if self._trust:
            return http.client.HTTPSConnection("127.0.0.1", self._port, timeout=20, context=self._trust)
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)

    def _run(self, request: Callable[["Clients", http.client.HTTPConnection], int], pause: float, wanted: int) -> None:
        connection, used = self._connect(), False
        while not self._stop.is_set():
            try:
                try:
                    status = request(self, connection)
                except CLOSED:
                    if not used:
                        raise
                    self.reopened += 1
                    connection.close()
                    status = request(self, connection)
                used = connection.sock is not None
                if status != wanted:
                    self.failures.append(f"status {status}")
                self.answers += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                used = False
            time.sleep(pause)


def get(path: str, **headers: str) -> Callable[[Clients, http.client.HTTPConnection], int]:
    """A request for `Clients.add`."""
    def send(_: Clients, connection: http.client.HTTPConnection) -> int:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    return send


def post(path: str, body: bytes, **headers: str) -> Callable[[Clients, http.client.HTTPConnection], int]:
    """Likewise."""
    def send(_: Clients, connection: http.client.HTTPConnection) -> int:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    return send
