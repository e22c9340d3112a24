"""The cloud's keys: rotated without anybody noticing, known to every control, useless without the seal key."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from identity_cloud import Lab, made, project

from nacre.base.errors import Unavailable
from nacre.identity.keys import rows, seal, vault
from nacre.identity.keys.ring import Ring, Signer
from nacre.identity.keys.seal import SealError
from nacre.identity.keys.store import JOIN_SECONDS, MARGIN
from nacre.identity.tables import credentials, documents, sealed_keys


async def states(lab: Lab, purpose: str) -> dict[int, str]:
    return {row["number"]: row["state"] for row in await lab.keys.held(purpose)}


async def demo_token(lab: Lab) -> str:
    return await lab.token("demo", "demo-pw", project("demo"))


def forget(lab: Lab) -> None:
    """As after a thousand other tokens: nothing is remembered of those that were checked."""
    lab.identity._known.clear()


async def test_a_rotation_ends_no_token(lab: Lab) -> None:
    before = await demo_token(lab)
    assert await states(lab, "token") == {1: "primary", 2: "staged"}
    await lab.keys.rotate("token")
    assert await states(lab, "token") == {1: "secondary", 2: "primary", 3: "staged"}
    await lab.clock.advance(1.01)
    after = await demo_token(lab)
    assert (before[:2], after[:2]) == ("1.", "2.")
    forget(lab)
    assert await lab.works(before) and await lab.works(after)


async def test_another_control_learns_of_keys_when_it_meets_them(lab: Lab) -> None:
    other = Lab(lab.folder, lab.db)
    assert (await demo_token(other))[:2] == "1."
    for _ in range(3):  # so that even the staged key is one that the other has not seen
        await lab.keys.rotate("token")
    await lab.clock.advance(1.01)
    token = await demo_token(lab)
    assert token[:2] == "4." and await other.works(token), "without waiting, and without a restart"
    await other.clock.advance(1.01)
    assert (await demo_token(other))[:2] == "4."


async def test_keys_go_when_nothing_that_they_sealed_can_be_valid(lab: Lab) -> None:
    await lab.keys.rotate("token")
    await lab.keys.rotate("join")
    await lab.clock.advance(3600 + MARGIN - 1)
    await lab.keys.clean()
    assert set(await states(lab, "token")) == {1, 2, 3}
    await lab.clock.advance(2)
    await lab.keys.clean()
    assert await states(lab, "token") == {2: "primary", 3: "staged"}
    assert set(await states(lab, "join")) == {1, 2, 3}
    await lab.clock.advance(JOIN_SECONDS)
    await lab.keys.clean()
    assert set(await states(lab, "join")) == {2, 3}
    await lab.keys.rotate("token")
    assert set(await states(lab, "token")) == {2, 3, 4}, "a number is never used again"


async def test_junk_that_names_unknown_keys_costs_little(lab: Lab) -> None:
    token, looks, held = await demo_token(lab), 0, lab.keys.held

    async def counted(*purposes: str) -> Any:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0.01)
        return await held(*purposes)
    lab.keys.held = counted  # type: ignore[method-assign]
    junk = [f"{n}.{token[2:]}" for n in (7, 99, 123456789)] * 20 + [f"0{token}", f"00.{token[2:]}", f"-1.{token[2:]}"]
    assert not any(await asyncio.gather(*(lab.works(each) for each in junk)))
    assert looks <= 3


def secrets_of(lab: Lab) -> list[str]:
    """Every encrypted text as it lies in the database."""
    with lab.db.engine.connect() as conn:
        texts = list(conn.scalars(sa.select(credentials.c.secret)))
        texts += [e["sealed"] for e in conn.scalars(sa.select(documents.c.extra)) if "sealed" in e]
    return sorted(text.partition(".")[0] for text in texts)


async def a_secret_of_each_kind(lab: Lab) -> Callable[[], Any]:
    """A credential, an EC2 pair and a consumer; what is returned reads their secrets back."""
    admin, demo = await lab.admin(), await lab.demo()
    token = (await demo.get("/auth/tokens", headers={"X-Subject-Token": demo.headers["X-Auth-Token"]})).json()["token"]
    user, own = token["user"]["id"], token["project"]["id"]
    one = await made(demo, "/credentials", "credential", blob="the blob", type="cert", user_id=user, project_id=own)
    pair = (await demo.post(f"/users/{user}/credentials/OS-EC2", json={"tenant_id": own})).json()["credential"]
    await made(admin, "/OS-OAUTH1/consumers", "consumer", description="c")

    async def read(by: Lab = lab) -> tuple[str, str]:
        async with by.client(demo.headers["X-Auth-Token"]) as client:
            blob = (await client.get(f"/credentials/{one['id']}")).json()["credential"]["blob"]
            path = f"/users/{user}/credentials/OS-EC2/{pair['access']}"
            return blob, (await client.get(path)).json()["credential"]["secret"]
    assert await read() == ("the blob", pair["secret"])
    return read


async def test_credentials_move_to_the_new_key_and_the_old_one_goes(lab: Lab) -> None:
    read, other = await a_secret_of_each_kind(lab), Lab(lab.folder, lab.db)
    before = await read(other)
    assert secrets_of(lab) == ["1", "1", "1"]
    await lab.keys.rotate("credential")
    assert secrets_of(lab) == ["2", "2", "2"]
    assert await states(lab, "credential") == {2: "primary", 3: "staged"}
    assert await read() == before and await read(other) == before
    demo = await other.demo()
    await made(demo, "/credentials", "credential", blob="b", type="cert", user_id=await user_id(demo))
    assert secrets_of(lab) == ["2", "2", "2", "2"], "who has not heard of the rotation writes with the new key, too"


async def user_id(client: Any) -> str:
    token = client.headers["X-Auth-Token"]
    return (await client.get("/auth/tokens", headers={"X-Subject-Token": token})).json()["token"]["user"]["id"]


async def test_a_rotation_that_was_cut_short_is_finished_by_a_control(lab: Lab) -> None:
    read = await a_secret_of_each_kind(lab)
    before = await read()
    await lab.db.run(lambda conn: rows.rotate(conn, lab.keys._seal, "credential", 0.0))  # then it is killed
    assert secrets_of(lab) == ["1", "1", "1"] and await read() == before
    await Lab(lab.folder, lab.db).keys.clean()
    assert secrets_of(lab) == ["2", "2", "2"] and set(await states(lab, "credential")) == {2, 3}
    assert await read() == before


async def test_many_credentials_move_in_several_transactions(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault, "BATCH", 2)
    demo = await lab.demo()
    user = await user_id(demo)
    blobs = {(await made(demo, "/credentials", "credential", blob=f"b{n}", type="cert", user_id=user))["id"]: f"b{n}"
             for n in range(7)}
    assert secrets_of(lab) == ["1"] * 7
    await lab.keys.rotate("credential")
    assert secrets_of(lab) == ["2"] * 7
    assert {c["id"]: c["blob"] for c in (await demo.get("/credentials")).json()["credentials"]} == blobs


async def test_after_the_loss_of_the_seal_key_one_begins_anew(lab: Lab) -> None:
    await a_secret_of_each_kind(lab)
    token = await demo_token(lab)
    (lab.folder / "seal-key").unlink()
    with pytest.raises(SealError):
        await Lab(lab.folder, lab.db).keys.open()
    await lab.db.run(lambda conn: conn.execute(sa.delete(sealed_keys)))
    new = Lab(lab.folder, lab.db)
    await new.keys.open()
    assert not await new.works(token) and await new.works(await demo_token(new))
    async with await new.admin() as admin:
        assert [c["blob"] for c in (await admin.get("/credentials")).json()["credentials"]] == [None, None]


async def test_a_credential_that_no_key_opens_hides_no_other(lab: Lab) -> None:
    read = await a_secret_of_each_kind(lab)
    admin = await lab.admin()
    lost = await made(admin, "/credentials", "credential", blob="b", type="cert", user_id=await user_id(admin))
    await lab.db.run(lambda conn: conn.execute(
        sa.update(credentials).where(credentials.c.id == lost["id"]).values(secret="9.gAAAAA")))
    shown = {c["id"]: c["blob"] for c in (await admin.get("/credentials")).json()["credentials"]}
    assert shown[lost["id"]] is None and "the blob" in shown.values()
    await lab.keys.rotate("credential")
    assert set(await states(lab, "credential")) == {2, 3} and (await read())[0] == "the blob"
    assert (await admin.delete(f"/credentials/{lost['id']}")).status_code == 204


async def test_a_control_without_the_seal_key_does_not_start(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(SealError, match=r"there is no .*copy the seal key"):
        await Lab(tmp_path / "second", lab.db).keys.open()
    assert not (tmp_path / "second").exists(), "none is made for a cloud that has one"
    seal.write_new(tmp_path / "third" / "seal-key")
    with pytest.raises(SealError, match=r"sealed by another key than .*third/seal-key.*NACRE_IDENTITY_SEAL_KEY"):
        await Lab(tmp_path / "third", lab.db).keys.open()
    (tmp_path / "third" / "seal-key").write_bytes((lab.folder / "seal-key").read_bytes())
    await Lab(tmp_path / "third", lab.db).keys.open()


async def test_the_seal_key_of_the_option(lab: Lab, tmp_path: Path) -> None:
    text = (lab.folder / "seal-key").read_text().strip()
    for given in (text, str(lab.folder / "seal-key")):
        other = Lab(tmp_path / "other", lab.db)
        other.keys._seal = seal.Seal(tmp_path / "other" / "seal-key", given)
        await other.keys.open()
    with pytest.raises(SealError, match=r"identity\.seal_key holds no seal key") as error:
        seal.Seal(tmp_path, text[:-4]).load()
    assert text[:8] not in error.value.message
    (lab.folder / "seal-key").chmod(0o640)
    with pytest.raises(SealError, match="chmod 600"):
        await Lab(lab.folder, lab.db).keys.open()


async def test_of_two_first_starts_one_makes_the_keys(lab: Lab, tmp_path: Path) -> None:
    await lab.db.run(lambda conn: conn.execute(sa.delete(sealed_keys)))
    one, two = Lab(tmp_path / "one", lab.db), Lab(tmp_path / "two", lab.db)
    held, first = two.keys.held, True

    async def late(*purposes: str) -> Any:
        nonlocal first
        found = await held(*purposes)
        if first:  # between its look and its rows the other control makes them
            first = False
            await one.keys.open()
        return found
    two.keys.held = late  # type: ignore[method-assign]
    with pytest.raises(SealError):
        await two.keys.open()
    assert not (tmp_path / "two" / "seal-key").exists(), "a key that seals nothing would mislead"
    await one.keys.open()


async def test_the_seal_key_changes_while_controls_run(lab: Lab, tmp_path: Path) -> None:
    other = Lab(tmp_path / "other", lab.db)
    seal.write_new(tmp_path / "new")
    other.keys._seal = seal.Seal(lab.folder / "seal-key", (lab.folder / "seal-key").read_text())
    token = await demo_token(other)
    assert await lab.keys.reseal(seal.read(tmp_path / "new")) == 6
    assert lab.keys._seal.replace(tmp_path / "new")
    with pytest.raises(SealError):
        await Lab(tmp_path / "old", lab.db).keys.open()
    await Lab(lab.folder, lab.db).keys.open()
    for each in (lab, other):
        await each.clock.advance(1.01)
        forget(each)
        assert await each.works(token) and await demo_token(each), "what a control knows it goes on knowing"
    await lab.keys.rotate("token")
    await lab.keys.rotate("token")
    await lab.clock.advance(1.01)
    new = await demo_token(lab)
    assert new[:2] == "3." and await lab.works(new)
    with pytest.raises(Unavailable, match="cannot be opened here"):  # it has not got the new seal key
        await other.identity.inspect(new)


async def test_join_signatures(lab: Lab, tmp_path: Path) -> None:
    here, there = (Signer(Ring(each.keys, "join")) for each in (lab, Lab(lab.folder, lab.db)))
    signature = await here.sign(b"host, until then")
    assert await there.verify(b"host, until then", signature)
    for payload, text in ((b"host, until later", signature), (b"host, until then", signature[:-1]),
                          (b"host, until then", "9" + signature), (b"host, until then", ""),
                          (b"host, until then", "é." + signature), (b"host, until then", "02." + signature[2:])):
        assert not await there.verify(payload, text), text
    await lab.keys.rotate("join")
    await lab.clock.advance(1.01)
    assert (await here.sign(b"x"))[:2] == "2." and await there.verify(b"x", await here.sign(b"x"))
    assert await there.verify(b"host, until then", signature)
    await lab.clock.advance(JOIN_SECONDS + MARGIN)
    await lab.keys.clean()
    assert not await here.verify(b"host, until then", signature)


async def test_a_blob_is_bound_to_its_row_and_shows_nothing(lab: Lab) -> None:
    held = {(r["purpose"], r["number"]): r for r in await lab.keys.held()}
    secret = lab.keys._seal.open("token", 1, held["token", 1]["blob"])
    assert len(secret) == 32 and all(secret not in r["blob"] for r in held.values())
    for purpose, number in (("token", 2), ("credential", 1)):
        with pytest.raises(SealError):
            lab.keys._seal.open(purpose, number, held["token", 1]["blob"])
    assert not any("blob" in rows.shown(r) for r in held.values())
    assert secret.hex() not in repr(lab.keys.opened(held["token", 1])).lower() and "1" in repr(
        lab.keys.opened(held["token", 1]))
