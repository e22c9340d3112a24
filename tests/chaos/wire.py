"""A TCP connection's way that can be cut, held and listened to, for tests: clients connect to `port`."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

#: Closing sends a reset, as a machine does that knows nothing of the connection.
RESET = struct.pack("ii", 1, 0)


class Wire:
    """Passes everything on to (host, port) until told otherwise.

    heard: called with what a client sends, before it goes on; False: it is lost, and the connection with it.
    """

    def __init__(self, host: str, port: int):
        self._to = host, port
        self.heard: Callable[[bytes], bool] = lambda _: True
        self._open = threading.Event()
        self._open.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._door.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> int:
        """Break all connections; new ones are taken. How many there were."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            self._end(pair)
        return len(pairs)

    def hold(self) -> None:
        """Nothing passes, and nobody is told."""
        self._open.clear()

    def release(self) -> None:
        """What was held goes on."""
        self._open.set()

    def doors(self) -> set[int]:
        """The ports from which the server sees the connections come."""
        found = set()
        for _, server in self._pairs:
            with contextlib.suppress(OSError):
                found.add(int(server.getsockname()[1]))
        return found

    def close(self) -> None:
        self._door.close()
        self.release()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        self._open.wait()
        try:
            server = socket.create_connection(self._to)
        except OSError:
            return client.close()
        pair = client, server
        self._pairs.append(pair)
        for one in pair:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for one, other, listen in ((client, server, True), (server, client, False)):
            threading.Thread(target=self._pass, args=(one, other, listen, pair), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, listen: bool,
              pair: tuple[socket.socket, socket.socket]) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                self._open.wait()
                if listen and not self.heard(data):
                    break
                other.sendall(data)
        self._end(pair)

    @staticmethod
    def _end(pair: tuple[socket.socket, socket.socket]) -> None:
        for one in pair:
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                one.shutdown(socket.SHUT_RDWR)
            one.close()
