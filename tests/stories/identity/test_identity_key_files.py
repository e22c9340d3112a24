"""The first start after an upgrade: key files of earlier releases become rows, and what they sealed stays good."""

import shutil
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet, MultiFernet
from identity_cloud import Lab, made, project

from nacre.identity.keys.seal import SealError
from nacre.identity.keys.store import MARGIN, Keys
from nacre.identity.tables import credentials, documents, sealed_keys


class Earlier:
    """A cloud as the release before left it: keys in files, texts that name no key."""

    def __init__(self, lab: Lab):
        self.lab, self.folder = lab, lab.folder
        self.files = {name: {n: Fernet.generate_key() for n in (0, 3, 4)} for name in ("token-keys", "credential-keys")}

    def fernet(self, name: str, *numbers: int) -> MultiFernet:
        return MultiFernet([Fernet(self.files[name][n]) for n in numbers])

    def write(self) -> None:
        for name, keys in self.files.items():
            (self.folder / name).mkdir(mode=0o700)
            (self.folder / name / ".0.draft").write_bytes(b"left by a crash")
            for number, key in keys.items():
                (self.folder / name / str(number)).write_bytes(key)

    async def token(self, number: int) -> str:
        """One that the key of that file made."""
        token = await self.lab.token("demo", "demo-pw", project("demo"))
        number_now, _, body = token.partition(".")
        inner = self.lab.identity.keys.known[int(number_now)].fernet.decrypt(body + "=" * (-len(body) % 4))
        earlier = msgspec.msgpack.encode(msgspec.msgpack.decode(inner)[:7])
        return Fernet(self.files["token-keys"][number]).encrypt(earlier).rstrip(b"=").decode()

    async def credential(self, blob: str, number: int) -> str:
        """Its id; encrypted by the key of that file."""
        async with await self.lab.demo() as demo:
            token = demo.headers["X-Auth-Token"]
            user = (await demo.get("/auth/tokens", headers={"X-Subject-Token": token})).json()["token"]["user"]["id"]
            row = await made(demo, "/credentials", "credential", blob=blob, type="cert", user_id=user)
        text = Fernet(self.files["credential-keys"][number]).encrypt(blob.encode()).decode()
        await self.lab.db.run(lambda conn: conn.execute(
            sa.update(credentials).where(credentials.c.id == row["id"]).values(secret=text)))
        return str(row["id"])

    async def consumer(self) -> str:
        """The secret, as it lies in the database."""
        async with await self.lab.admin() as admin:
            row = await made(admin, "/OS-OAUTH1/consumers", "consumer", description="c")
        text = Fernet(self.files["credential-keys"][4]).encrypt(row["secret"].encode()).decode()
        d = documents.c

        def unit(conn: sa.Connection) -> None:
            extra = conn.scalar(sa.select(d.extra).where(d.kind == "consumer", d.id == row["id"]))
            conn.execute(sa.update(documents).where(d.kind == "consumer", d.id == row["id"]).values(
                extra={**extra, "sealed": text}))
        await self.lab.db.run(unit)
        return str(row["secret"])

    async def leave(self) -> None:
        """No rows of keys any more, and no seal key."""
        await self.lab.db.run(lambda conn: conn.execute(sa.delete(sealed_keys)))
        (self.folder / "seal-key").unlink()


@pytest.fixture
def earlier(lab: Lab) -> Earlier:
    made = Earlier(lab)
    made.write()
    return made


async def test_tokens_and_credentials_outlive_the_upgrade(earlier: Earlier, tmp_path: Path) -> None:
    tokens = [await earlier.token(n) for n in (3, 4)]
    ids = {await earlier.credential(f"blob {n}", n): f"blob {n}" for n in (3, 4)}
    secret = await earlier.consumer()
    await earlier.leave()

    lab = Lab(earlier.folder, earlier.lab.db)
    await lab.keys.open()
    held = {r["number"]: r["state"] for r in await lab.keys.held("token")}
    assert held == {1: "secondary", 2: "primary", 3: "staged"}, "0 was the staged one, the highest number the primary"
    assert [await lab.works(token) for token in tokens] == [True, True]
    async with await lab.demo() as demo:
        for id, blob in ids.items():
            assert (await demo.get(f"/credentials/{id}")).json()["credential"]["blob"] == blob
    with lab.db.engine.connect() as conn:
        texts = list(conn.scalars(sa.select(credentials.c.secret)))
        sealed = next(e["sealed"] for e in conn.scalars(sa.select(documents.c.extra)) if "sealed" in e)
        assert [t[:2] for t in (*texts, sealed)] == ["2.", "2.", "2."]
        assert lab.keys.vault.unlock(conn).decrypt(sealed) == secret
    assert sorted(p.name for p in earlier.folder.iterdir()) == ["seal-key"]

    await lab.keys.rotate("token")
    await lab.keys.rotate("credential")
    lab.identity._known.clear()
    assert [await lab.works(token) for token in tokens] == [True, True]
    await lab.clock.advance(3600 + MARGIN + 1)
    await lab.keys.clean()
    assert {r["number"] for r in await lab.keys.held("token")} == {3, 4}


async def test_a_start_that_is_killed_before_the_files_are_removed(
        earlier: Earlier, tmp_path_factory: pytest.TempPathFactory) -> None:
    token = await earlier.token(4)
    await earlier.leave()
    kept = tmp_path_factory.mktemp("kept") / "control"
    shutil.copytree(earlier.folder, kept)
    await Lab(earlier.folder, earlier.lab.db).keys.open()
    for name in earlier.files:
        shutil.copytree(kept / name, earlier.folder / name)  # as if the rows were committed and nothing more
    lab = Lab(earlier.folder, earlier.lab.db)
    await lab.keys.open()
    assert await lab.works(token) and sorted(p.name for p in earlier.folder.iterdir()) == ["seal-key"]


async def test_files_of_another_database_stay(earlier: Earlier) -> None:
    """The folder was started over a new, empty database: the keys are those of the cloud in the old one."""
    await Lab(earlier.folder, earlier.lab.db).keys.open()
    assert {p.name for p in earlier.folder.iterdir()} == {"seal-key", "token-keys", "credential-keys"}
    assert (earlier.folder / "token-keys" / "4").read_bytes() == earlier.files["token-keys"][4]


async def test_a_new_database_takes_no_files(earlier: Earlier) -> None:
    await earlier.leave()
    await earlier.lab.db.run(lambda conn: conn.execute(sa.text("delete from identity_users")))
    await Lab(earlier.folder, earlier.lab.db).keys.open()
    assert (earlier.folder / "credential-keys" / "4").exists()


async def test_without_a_staged_file_one_is_made(earlier: Earlier) -> None:
    """A rotation of the release before was killed between its two steps."""
    (earlier.folder / "token-keys" / "0").unlink()
    token = await earlier.token(4)
    await earlier.leave()
    lab = Lab(earlier.folder, earlier.lab.db)
    await lab.keys.open()
    assert [r["state"] for r in await lab.keys.held("token")] == ["secondary", "primary", "staged"]
    assert await lab.works(token)


async def test_a_file_that_holds_no_key_is_named(earlier: Earlier) -> None:
    (earlier.folder / "token-keys" / "4").write_bytes(b"x")
    await earlier.leave()
    keys: Keys = Lab(earlier.folder, earlier.lab.db).keys
    with pytest.raises(SealError, match=r"token-keys/4 holds no key"):
        await keys.open()
    assert await keys.held() == []
