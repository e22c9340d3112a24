"""What a host says when it fails is for operators: no member reads a path, a host, an exception or an address of it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.stories.test_orphans import until
from tests.stories.test_orphans_of_strangers import Stranger
from tests.stories.test_ports_of_servers import image
from tests.stories.whole_cloud import WholeCloud, whole_cloud

from nacre.base import errors as e
from nacre.base.rpc.codec import Failure, error_from
from nacre.network.contract import Differences, GroupMembers
from nacre.node.contract import CONSOLE, TARGET, Guest, Node, Work

WORDS = "PermissionError: /var/lib/nacre/x postgresql://nacre:pw@db/nacre on evil-host"
SECRETS = ("PermissionError", "/var/lib", "postgresql", "evil", "pw@db")
ERRORS: list[BaseException] = [
    e.BuildFailed(WORDS), e.Refused(WORDS, field="evil-host"), e.Unavailable(details=WORDS), e.NacreError(WORDS),
    e.BadRequest(WORDS, type="evil-host"), e.NotFound(WORDS), e.Conflict(WORDS), e.Forbidden(WORDS),
    e.QuotaExceeded(WORDS), e.BuildFailed(WORDS, type="ImageTooLarge"), OSError(13, WORDS), e.Interrupted(WORDS)]


class Liar(Stranger):
    """A host on which every verb of `fails` ends in `error`, and the others do nothing and say that they did."""

    def __init__(self, cloud: WholeCloud):
        super().__init__(cloud, "evil-host")
        self.error: BaseException | None = None
        self.fails: set[str] = set()
        self.shown = ""
        self.transport.serve(TARGET, self, Node, ("control",))

    def _done(self, verb: str, server: str = "", power: str = "running") -> Work:
        if verb in self.fails and self.error is not None:
            raise self.error
        return Work(done=True, guest=Guest(server_id=server, power=power, number=(1, 1)) if server else None)

    async def prepare(self, order: Any) -> Work:
        return self._done("prepare")

    async def spawn(self, order: Any) -> Work:
        return self._done("spawn", order.server_id)

    async def end(self, order: Any) -> Work:
        return Work(done=True)

    async def power(self, order: Any) -> Work:
        return self._done("power", order.server_id)

    async def console(self, server_id: str, lines: int | None) -> str:
        self._done("console")
        return self.shown

    async def rewire(self, port_ids: tuple[str, ...], n: int = 0, before: int = 0) -> None:
        self._done("rewire")

    async def differ(self, news: Differences) -> None:
        self._done("differ")

    async def regroup(self, news: tuple[GroupMembers, ...]) -> None:
        self._done("regroup")


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[WholeCloud]:
    async with whole_cloud(tmp_path, host=False) as made:
        yield made


async def read(cloud: WholeCloud, user: str, server: str) -> str:
    """All that a user reads of a server."""
    path = f"/servers/{server}"
    actions = await cloud.ask(user, "GET", "compute", path + "/os-instance-actions")
    told = [(await cloud.ask(user, "GET", "compute", path)).text, actions.text]
    for action in actions.json()["instanceActions"]:
        one = await cloud.ask(user, "GET", "compute", f"{path}/os-instance-actions/{action['request_id']}")
        told.append(one.text)
    return "\n".join(told)


@pytest.mark.timeout(120)
async def test_no_member_reads_a_hosts_words(cloud: WholeCloud) -> None:
    liar, image_id = Liar(cloud), await image(cloud)
    await liar.claims(says=())
    body = {"name": "s", "imageRef": image_id, "flavorRef": "42", "networks": "none"}

    async def made(status: str) -> str:
        answer = await cloud.ask("demo", "POST", "compute", "/servers", {"server": body})
        assert answer.status_code == 202, answer.text
        found = str(answer.json()["server"]["id"])

        async def so() -> bool:
            return bool((await cloud.ask("demo", "GET", "compute", f"/servers/{found}")).json()[
                "server"]["status"] == status)

        await until(so)
        return found

    async def gone(server: str) -> None:
        await cloud.ask("demo", "DELETE", "compute", f"/servers/{server}")

        async def so() -> bool:
            return (await cloud.ask("demo", "GET", "compute", f"/servers/{server}")).status_code == 404

        await until(so)

    def check(text: str, what: object) -> None:
        assert not [word for word in SECRETS if word in text], f"{what!r}: {text}"

    for liar.error in ERRORS:
        if isinstance(liar.error, e.Unavailable | e.Interrupted):
            continue  # it is waited for, as long as the host beats
        for verb in ("prepare", "spawn"):
            liar.fails = {verb}
            server = await made("ERROR")
            check(await read(cloud, "demo", server), (verb, liar.error))
            fault = (await cloud.ask("admin", "GET", "compute", f"/servers/{server}")).json()["server"]["fault"]
            assert "evil-host" in fault["details"], fault
            if not isinstance(liar.error, OSError):  # the host's own log has that
                assert "/var/lib" in fault["details"], (verb, liar.error, fault)
            await gone(server)
    liar.fails = set()
    server = await made("ACTIVE")
    for liar.error in ERRORS:
        liar.fails = {"console"}
        asked = {"os-getConsoleOutput": {}}
        answer = await cloud.ask("demo", "POST", "compute", f"/servers/{server}/action", asked)
        assert answer.status_code >= 400
        check(answer.text + str(answer.headers), ("console", liar.error))
        if not isinstance(liar.error, OSError | e.NotFound):
            answer = await cloud.ask("admin", "POST", "compute", f"/servers/{server}/action", asked)
            assert "/var/lib" in answer.text
    liar.fails, liar.shown = set(), "a" + "\x01" * ((1 << 20) - 2) + "b"
    answer = await cloud.ask("demo", "POST", "compute", f"/servers/{server}/action", {"os-getConsoleOutput": {}})
    assert len(answer.content) < 700_000 and answer.json()["output"] == liar.shown[-CONSOLE:], "it has an end"
    liar.fails, liar.error = {"power"}, e.BuildFailed(WORDS)
    stopped = await cloud.ask("demo", "POST", "compute", f"/servers/{server}/action", {"os-stop": None})
    assert stopped.status_code == 202

    async def idle() -> bool:
        found = (await cloud.ask("demo", "GET", "compute", f"/servers/{server}")).json()["server"]
        return found["OS-EXT-STS:task_state"] is None

    await until(idle)
    check(await read(cloud, "demo", server), "power")


@settings(max_examples=200)
@given(kinds=st.lists(st.sampled_from([k.__name__ for k in (e.BuildFailed, e.BadRequest, e.NacreError)]) | st.text(),
                      max_size=3), words=st.text(), type=st.sampled_from(sorted(e.REASONS)) | st.text(),
       field=st.none() | st.text())
def test_whatever_a_host_answers_its_words_are_details(kinds: list[str], words: str, type: str,
                                                       field: str | None) -> None:
    error = e.told_by("h1", error_from(Failure(tuple(kinds), words, type, field, words)))
    known = set(e.REASONS.values()) | {kind.default for kind in _all(e.NacreError)}
    assert error.message in known and error.field is None
    assert error.type in set(e.REASONS) | {kind.__name__ for kind in _all(e.NacreError)}
    assert error.details.startswith("h1: ") and len(error.details) <= e.MOST_TOLD + 4


def _all(kind: type[e.NacreError]) -> list[type[e.NacreError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in _all(child))]


def test_what_nobody_decided_says_nothing_to_members() -> None:
    for error in (OSError(13, WORDS), RuntimeError(WORDS), e.Unavailable(details=WORDS), e.NoValidHost(details=WORDS)):
        message, details = e.words_of(error)
        assert not [word for word in SECRETS if word in message] and WORDS in details


async def test_an_import_that_fails_at_the_store_says_nothing_of_it(tmp_path: Path) -> None:
    async with whole_cloud(tmp_path, host=False) as cloud:
        made = (await cloud.ask("demo", "POST", "image", "/images", {
            "name": "i", "disk_format": "raw", "container_format": "bare"})).json()["id"]
        staged = await cloud.http.put(f"/image/v2/images/{made}/stage", content=b"x" * 4096, headers={
            "X-Auth-Token": await cloud.token("demo"), "Content-Type": "application/octet-stream"})
        assert staged.status_code == 204
        folder = tmp_path / "control" / "images"
        folder.rename(tmp_path / "control" / "away")
        folder.write_text("no folder")
        told = (await cloud.ask("demo", "POST", "image", f"/images/{made}/import", {
            "method": {"name": "glance-direct"}})).text

        async def over() -> bool:
            nonlocal told
            answer = await cloud.ask("demo", "GET", "image", f"/images/{made}/tasks")
            told += answer.text
            return all(task["status"] in ("failure", "success") for task in answer.json()["tasks"])

        await until(over)
        assert "failure" in told
        assert not [word for word in (str(tmp_path), "Errno", "Error:", "control/") if word in told], told
