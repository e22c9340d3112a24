"""A little server of its own, served as control is, in a process that can be told to end.

`python -m tests.cloud.serving_lab HOST PORT DRAIN NAME`: `GET /app/fast` answers NAME, `/app/slow?seconds=1` later,
`POST /app/sum` the size of what was sent, `GET /app/much` 16 MiB at once, `/app/stream` 32 in parts. While the file
`NAME.away` is there, its database does not answer.
"""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import uvloop

from nacre.base.clock import RealClock
from nacre.base.context import Context
from nacre.base.errors import NacreError
from nacre.base.serving.bodies import read
from nacre.base.serving.connections import Patience
from nacre.base.serving.gate import PUBLIC
from nacre.base.serving.health import Health
from nacre.base.serving.server import Listen, serve
from nacre.base.serving.tls import ServerTls, operators
from nacre.base.web import App, Reply, Request, Route, Service
from nacre.cli.supervisor import free_port

ROOT = Path(__file__).parents[2]


def application(name: str, health: Health) -> App:
    async def fast(_: Request) -> Any:
        return {"by": name}

    async def slow(request: Request) -> Any:
        await asyncio.sleep(float(request.one("seconds") or 1))
        return {"by": name}

    async def total(request: Request) -> Any:
        return {"by": name, "size": len(await read(request.headers, request.stream(), 1 << 20))}

    async def much(_: Request) -> Any:
        return Reply(bytes(16 << 20))

    async def stream(request: Request) -> Any:
        async def parts() -> AsyncIterator[bytes]:
            room, left = request.room, 32 << 20
            try:
                while left:
                    size = await room.take(min(1 << 20, left))
                    yield bytes(size)
                    room.give(size)
                    left -= size
            finally:
                room.end()
        return Reply(parts())

    async def nobody(_: str) -> Context:
        raise NotImplementedError

    def fault(error: NacreError, status: int, request: Request) -> Reply:
        return Reply({"error": error.message}, status)

    routes = [Route("GET", "/fast", fast, PUBLIC), Route("GET", "/slow", slow, PUBLIC),
              Route("GET", "/much", much, PUBLIC), Route("GET", "/stream", stream, PUBLIC),
              Route("POST", "/sum", total, PUBLIC)]
    return App([Service("app", "/app", routes, fault), health.service()], nobody, lambda *_: True)


async def main(host: str, port: int, drain: float, name: str) -> None:
    """TLS where there is a certificate in the file `server.pem`."""
    away = Path(f"{name}.away")

    async def look() -> None:
        if await asyncio.to_thread(away.exists):
            raise OSError("away")
    health = Health(look, RealClock())
    pem = Path("server.pem")
    tls = ServerTls(operators(pem, None)).context if await asyncio.to_thread(pem.exists) else None
    patience = json.loads(os.environ.get("PATIENCE", "{}"))
    await serve(application(name, health), Listen(host, port, tls, drain=drain, patience=Patience(**patience)), health)
    print("ended in order")


class Server:
    """One such process."""

    def __init__(self, folder: Path, drain: float = 0.0, name: str = "one", host: str = "127.0.0.1", port: int = 0,
                 **patience: float):
        self.patience = patience
        self.folder, self.drain, self.name, self.host, self.port = folder, drain, name, host, port or free_port()
        self.start()

    def start(self) -> None:
        environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "PATIENCE": json.dumps(self.patience)}
        self.log = (self.folder / f"{self.name}.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.cloud.serving_lab", self.host, str(self.port), str(self.drain), self.name],
            cwd=self.folder, env=environ, stdout=self.log, stderr=self.log)
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self.process.poll() is None and time.monotonic() < end, self.said()
            time.sleep(0.02)

    def said(self) -> str:
        return (self.folder / f"{self.name}.log").read_text()

    def signal(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def end(self) -> float:
        """Wait for its end; how long that took, in seconds."""
        begin = time.monotonic()
        assert self.process.wait(30) == 0, self.said()
        self.log.close()
        return time.monotonic() - begin

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def get(self, path: str, connection: http.client.HTTPConnection | None = None) -> tuple[int, str, str]:
        """Status, body, and what the answer says of the connection."""
        used = connection or self.connect()
        used.request("GET", path)
        answer = used.getresponse()
        found = answer.status, answer.read().decode(), answer.getheader("connection", "")
        if connection is None:
            used.close()
        return found


@contextlib.contextmanager
def server(folder: Path, **options: Any) -> Iterator[Server]:
    made = Server(folder, **options)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
            made.process.wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
