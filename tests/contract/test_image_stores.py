"""Every image store keeps the same promises."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.s3_lab import bucket, s3_server

from nacre.base.errors import NotFound, TooLarge, Unavailable
from nacre.cli.supervisor import free_port
from nacre.config import S3_OPTIONS
from nacre.image.data.files import FileStore, SharedStore
from nacre.image.data.s3 import PARTS, S3Options, S3Store, part_size
from nacre.image.data.store import MemoryStore, Store

KEY = "0aa1b0c2-0000-4000-8000-00000000abcd"
OTHER = "1aa1b0c2-0000-4000-8000-00000000abcd"
MB = 1 << 20


def opened(store: Store) -> Store:
    store.open(known=False)
    return store


@pytest.fixture(params=["memory", "file", "shared", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    made: dict[str, Callable[[], Store]] = {
        "memory": MemoryStore, "file": lambda: FileStore(tmp_path / "store"), "shared": lambda: SharedStore(tmp_path),
        "s3": lambda: S3Store(request.getfixturevalue("s3_bucket"))}
    return opened(made[request.param]())


def put(store: Store, key: str, *parts: bytes) -> None:
    sink = store.create(key)
    for part in parts:
        sink.write(part)
    sink.commit()


def absent(store: Store, key: str) -> bool:
    for verb in (lambda: store.size(key), lambda: store.read(key, 0, 1), lambda: store.read(key, 0, 0)):
        with pytest.raises(NotFound):
            verb()
    return True


def test_data_appears_whole_or_not_at_all(store: Store) -> None:
    sink = store.create(KEY)
    sink.write(b"01234")
    assert absent(store, KEY)
    sink.write(b"56789")
    sink.commit()
    sink.discard()
    assert store.size(KEY) == 10
    assert [store.read(KEY, *at) for at in ((0, 4), (8, 9), (10, 5), (99, 1), (0, 10), (3, 0))] == [
        b"0123", b"89", b"", b"", b"0123456789", b""]


def test_empty_data_is_data(store: Store) -> None:
    put(store, KEY)
    assert store.size(KEY) == 0 and store.read(KEY, 0, 1) == b""


def test_large_data_comes_back_as_it_went(store: Store) -> None:
    """More than two parts of an upload to a bucket, in odd cuts."""
    data = os.urandom(MB) * 19 + b"end"
    put(store, KEY, *(data[at:at + 777_777] for at in range(0, len(data), 777_777)))
    assert store.size(KEY) == len(data)
    pieces = [store.read(KEY, at, 5 * MB + 1) for at in range(0, len(data), 5 * MB + 1)]
    assert hashlib.sha256(b"".join(pieces)).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("size", [1, 10 * MB])
def test_discarded_data_leaves_nothing(store: Store, size: int) -> None:
    sink = store.create(KEY)
    sink.write(bytes(size))
    sink.discard()
    sink.discard()
    assert absent(store, KEY) and uploads(store) == 0


@pytest.mark.parametrize("size", [1, 10 * MB])
def test_what_a_dead_writer_left_can_be_deleted(store: Store, size: int) -> None:
    store.create(KEY).write(bytes(size))
    store.delete(KEY)
    assert absent(store, KEY) and uploads(store) == 0
    put(store, KEY, b"again")
    assert store.read(KEY, 0, 9) == b"again"


def uploads(store: Store) -> int:
    """Of what is half written, how much is left."""
    if isinstance(store, S3Store):
        return len(store.client.list_multipart_uploads(Bucket=store.options.bucket).get("Uploads", ()))
    return len(list(store._directory.iterdir())) if isinstance(store, FileStore) else 0


def test_deletes_may_be_repeated_and_hurt_no_other(store: Store) -> None:
    put(store, KEY, b"x")
    put(store, OTHER, b"y")
    store.delete(KEY)
    store.delete(KEY)
    assert absent(store, KEY) and store.read(OTHER, 0, 9) == b"y"


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "/etc/passwd", KEY + "/..", KEY.upper(), KEY + "\n", "."])
def test_a_key_is_never_a_path(store: Store, key: str) -> None:
    for verb in (store.create, store.size, store.delete, lambda k: store.read(k, 0, 1), lambda k: store.read(k, 0, 0)):
        with pytest.raises(NotFound):
            verb(key)


def test_a_crash_leaves_no_half_data(tmp_path: Path) -> None:
    opened(FileStore(tmp_path)).create(KEY).write(b"half")
    (tmp_path / "README").write_text("an operator's note")
    again = opened(FileStore(tmp_path))
    assert absent(again, KEY) and again.keys() == {KEY}  # type: ignore[attr-defined]
    again.delete(KEY)
    assert [p.name for p in tmp_path.iterdir()] == ["README"]


def test_two_never_write_the_same_name(tmp_path: Path) -> None:
    one, two = opened(SharedStore(tmp_path)), opened(SharedStore(tmp_path))
    one.create(KEY)
    with pytest.raises(Unavailable):
        two.create(KEY)


def test_a_mount_point_without_its_mount_is_no_empty_store(tmp_path: Path) -> None:
    """The folder inside is what says that the mount is there; with known data it is never made anew."""
    put(opened(SharedStore(tmp_path)), KEY, b"x")
    (tmp_path / "nacre-images").rename(tmp_path / "elsewhere")
    store = SharedStore(tmp_path)
    for verb in (lambda: store.open(known=True), lambda: store.read(KEY, 0, 1), lambda: store.create(OTHER),
                 lambda: store.delete(KEY)):
        with pytest.raises(Unavailable) as error:
            verb()
        assert str(tmp_path) not in error.value.message
    assert [p.name for p in tmp_path.iterdir()] == ["elsewhere"]
    with pytest.raises(Unavailable):
        SharedStore(tmp_path / "no-such-mount").open(known=False)


def test_a_full_medium_is_said_so() -> None:
    sink = MemoryStore(capacity=3).create(KEY)
    sink.write(b"abc")
    with pytest.raises(TooLarge, match="full"):
        sink.write(b"d")


def test_a_full_disk_is_said_so(tmp_path: Path) -> None:
    sink = opened(FileStore(tmp_path)).create(KEY)
    sink._file.close()  # type: ignore[attr-defined]
    sink._file = open("/dev/full", "wb", buffering=0)  # type: ignore[attr-defined]  # noqa: SIM115
    with pytest.raises(TooLarge, match="full"):
        sink.write(b"d")


def test_a_trillion_bytes_fit_into_the_parts_of_a_bucket() -> None:
    sizes = [part_size(done) for done in range(10_000)]
    assert sum(sizes) > 1 << 40 and sizes == sorted(sizes) and sizes[0] == PARTS[0][1] >= 5 * MB
    assert set(S3Options.__struct_fields__) == S3_OPTIONS


@pytest.mark.s3
def test_a_bucket_that_is_away_is_said_so() -> None:
    """And when it is back, the same store works on."""
    pytest.importorskip("botocore")
    port = free_port()
    with s3_server(port) as url:
        options = bucket(url)
        store = S3Store(options)
        put(store, KEY, b"x")
    half = store.create(OTHER)
    for verb in (lambda: store.read(KEY, 0, 1), lambda: store.size(KEY), lambda: store.delete(KEY),
                 lambda: half.write(bytes(9 * MB)), lambda: store.open(known=True)):
        with pytest.raises(Unavailable, match="does not answer") as error:
            verb()
        assert "127.0.0.1" not in error.value.message and options["bucket"] not in error.value.message
    half.discard()
    with s3_server(port):
        store.client.create_bucket(Bucket=options["bucket"])
        put(store, KEY, b"new")
        assert store.read(KEY, 0, 9) == b"new"


@pytest.mark.s3
def test_a_bucket_that_is_not_there_or_not_ours(s3_bucket: dict[str, str]) -> None:
    store = S3Store({**s3_bucket, "bucket": "no-such-bucket"})
    with pytest.raises(Unavailable, match="404"):
        store.open(known=False)
    with pytest.raises(Unavailable, match="NoSuchBucket"):
        store.read(KEY, 0, 1)
    with pytest.raises(Unavailable, match="NoSuchBucket"):
        put(store, KEY, b"x")


@pytest.mark.s3
def test_damage_on_the_way_is_noticed(s3_bucket: dict[str, str]) -> None:
    """A server that does not look at the MD5 that it was sent still answers with that of what it has."""
    store = S3Store(s3_bucket)

    def damage(request: object, **_: object) -> None:
        request.data = b"what arrived!"  # type: ignore[attr-defined]

    store.client.meta.events.register("before-sign.s3.PutObject", damage)
    with pytest.raises(Unavailable, match="what it was sent"):
        put(store, KEY, b"what was sent")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.binary(max_size=300), max_size=12), at=st.integers(0, 3000), length=st.integers(0, 3000))
def test_any_cut_and_any_range(tmp_path: Path, cuts: list[bytes], at: int, length: int) -> None:
    data = b"".join(cuts)
    for store in (MemoryStore(), opened(FileStore(tmp_path / "own")), opened(SharedStore(tmp_path))):
        store.delete(KEY)
        put(store, KEY, *cuts)
        assert store.read(KEY, at, length) == data[at:at + length] and store.size(KEY) == len(data)
