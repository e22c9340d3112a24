"""Who may keep a data folder's processes waiting: nobody but their own account, and nobody for ever."""

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nacre.cli.processes import folder, lock
from tests.cloud.folder_lab import HOLDS, USER, needs_root, working

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder.prepare(tmp_path / "data", None)
    return tmp_path / "data"


@contextlib.contextmanager
def alone(path: Path, *, free_after: float | None = None) -> Iterator[None]:
    handle = os.open(path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    freeing = threading.Timer(free_after or 0.0, fcntl.flock, (handle, fcntl.LOCK_UN))
    if free_after is not None:
        freeing.start()
    try:
        yield
    finally:
        freeing.cancel()
        freeing.join() if free_after is not None else None
        os.close(handle)


@needs_root
def test_controls_account_holds_none_of_roots_processes_up(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.prepare(data, USER)
    monkeypatch.setattr(lock, "TAKES", 0.0)
    with alone(data / "control"):
        with folder.prepared(data, USER), lock.held(data), working(HOLDS, str(data)) as node:
            assert node.poll() is None
        monkeypatch.setattr(folder, "PATIENCE", 0.0)
        with pytest.raises(folder.NotPrepared):
            folder.prepare(data, None)


@needs_root
def test_who_took_a_folder_over_keeps_nothing_of_it_locked_for_its_new_account(data: Path) -> None:
    with folder.prepared(data, USER), alone(data / "control"):
        pass


@pytest.mark.parametrize("place", lock.PLACES)
def test_who_cannot_go_on_says_what_holds_it_up(data: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setattr(lock, "TAKES", 0.1)
    with alone(data / place):
        for enter in (lambda: lock.held(data), lambda: folder.prepared(data, None)):
            said = rf"process \(({os.getpid()})\) keeps {data / place} locked"
            with pytest.raises(lock.NotFree, match=said), enter():
                pass


def test_a_command_that_takes_a_folder_over_is_waited_for(data: Path) -> None:
    with alone(data / "node", free_after=0.2), lock.held(data), pytest.raises(BlockingIOError), alone(data / "node"):
        pass
