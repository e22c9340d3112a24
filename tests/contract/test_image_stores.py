"""Every image store keeps the same promises."""

from pathlib import Path

import pytest

from nacre.base.errors import NotFound, TooLarge
from nacre.image.stores import FileStore, MemoryStore, Store

KEY = "0aa1b0c2-0000-4000-8000-00000000abcd"
OTHER = "1aa1b0c2-0000-4000-8000-00000000abcd"


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else FileStore(tmp_path / "store")


def put(store: Store, key: str, *parts: bytes) -> None:
    sink = store.create(key)
    for part in parts:
        sink.write(part)
    sink.commit()


def test_data_appears_whole_or_not_at_all(store: Store) -> None:
    sink = store.create(KEY)
    sink.write(b"01234")
    assert store.keys() == set()
    with pytest.raises(NotFound):
        store.read(KEY, 0, 5)
    sink.write(b"56789")
    sink.commit()
    sink.discard()
    assert store.keys() == {KEY} and store.size(KEY) == 10
    assert [store.read(KEY, *at) for at in ((0, 4), (8, 9), (10, 5), (99, 1), (0, 10))] == [
        b"0123", b"89", b"", b"", b"0123456789"]


def test_empty_data_is_data(store: Store) -> None:
    put(store, KEY)
    assert store.size(KEY) == 0 and store.read(KEY, 0, 1) == b""


def test_discarded_data_leaves_nothing(store: Store) -> None:
    sink = store.create(KEY)
    sink.write(b"x")
    sink.discard()
    sink.discard()
    assert store.keys() == set() and store.sweep([]) == []


def test_a_commit_replaces(store: Store) -> None:
    put(store, KEY, b"old")
    put(store, KEY, b"newer")
    assert store.read(KEY, 0, 99) == b"newer"


def test_deletes_may_be_repeated(store: Store) -> None:
    put(store, KEY, b"x")
    store.delete(KEY)
    store.delete(KEY)
    assert store.keys() == set()
    with pytest.raises(NotFound):
        store.size(KEY)


def test_the_sweep_keeps_what_is_wanted(store: Store) -> None:
    put(store, KEY, b"x")
    put(store, OTHER, b"y")
    assert store.sweep([KEY]) == [OTHER]
    assert store.keys() == {KEY} and store.sweep([KEY]) == []


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "/etc/passwd", KEY + "/..", KEY.upper(), KEY + "\n", "."])
def test_a_key_is_never_a_path(store: Store, key: str) -> None:
    for verb in (store.create, store.size, store.delete, lambda k: store.read(k, 0, 1)):
        if verb == store.delete and isinstance(store, MemoryStore):
            continue
        with pytest.raises(NotFound):
            verb(key)


def test_a_crash_leaves_no_half_data(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.create(KEY).write(b"half")
    (tmp_path / "README").write_text("an operator's note")
    assert FileStore(tmp_path).keys() == set()
    assert FileStore(tmp_path).sweep([]) == [KEY + ".part"]
    assert [p.name for p in tmp_path.iterdir()] == ["README"]


def test_a_full_medium_is_said_so() -> None:
    sink = MemoryStore(capacity=3).create(KEY)
    sink.write(b"abc")
    with pytest.raises(TooLarge, match="full"):
        sink.write(b"d")


def test_a_full_disk_is_said_so(tmp_path: Path) -> None:
    sink = FileStore(tmp_path).create(KEY)
    sink._file.close()
    sink._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.raises(TooLarge, match="full"):
        sink.write(b"d")
