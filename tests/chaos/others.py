"""Whoever uses the controls that are not broken: what fails for them, and how long they wait."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

from tests.chaos.fleet import NO_ANSWER, Fleet

_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDc2T1xYVrM3XlAo9bQv8u1o0n7qkqv1Jm5mT8o1mJ0P someone"


class Others:
    """Asks these controls all the time, to read and to write: what failed, and the longest that an answer took."""

    def __init__(self, fleet: Fleet, controls: Sequence[int]):
        self._fleet, self._controls, self._stop = fleet, controls, threading.Event()
        self.failures: list[str] = []
        self.slowest = {"GET": 0.0, "POST": 0.0, "DELETE": 0.0}
        self.answers = 0

    @contextlib.contextmanager
    def asked(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask, args=(control, kind))
                   for control in self._controls for kind in ("read", "write")]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _ask(self, control: int, kind: str) -> None:
        keypair = f"{kind}-{control}"
        steps = [("GET", "/servers/detail", None, 200)] if kind == "read" else [
            ("POST", "/os-keypairs", {"keypair": {"name": keypair, "type": "ssh", "public_key": _KEY}}, 201),
            ("DELETE", f"/os-keypairs/{keypair}", None, 204)]
        while not self._stop.is_set():
            for method, path, body, wanted in steps:
                begin = time.monotonic()
                try:
                    status, answer = self._fleet.ask(control, method, "compute", path, body)
                    if status != wanted:
                        self.failures.append(f"{method} {path}: {status} {answer}")
                except NO_ANSWER as error:
                    self.failures.append(f"{method} {path}: {error!r}")
                self.slowest[method] = max(self.slowest[method], time.monotonic() - begin)
                self.answers += 1
                time.sleep(0.03)
