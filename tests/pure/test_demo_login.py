"""The demo logs in to a guest that ran while its host's switch stood still: it waits, and not for ever. It has a way
out by itself."""

import urllib.request
from pathlib import Path

import pytest

from nacre.base.shell import CommandFailed
from nacre.cli import demo
from nacre.cli.processes.external import NotJoined
from nacre.config import KEPT_FILE


def guest(answers: list[str]) -> str:
    """Its next answer, or that it is not reached."""
    if answers and (said := answers.pop(0)):
        return said
    raise CommandFailed("ssh: connect to host 10.20.0.31 port 22: No route to host")


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.time, "sleep", lambda _: None)


def test_a_guest_that_is_reached_after_a_while_is_logged_in_to() -> None:
    answers, told = ["", "", "demo"], list[str]()
    assert demo.login(lambda _: guest(answers), told.append) == "demo"
    assert len(told) == 2 and all("No route to host" in each for each in told)


@pytest.mark.parametrize("why", ["root@10.20.0.31: Permission denied (publickey).", "sh: hostname: not found"])
def test_one_that_refuses_is_asked_once(why: str) -> None:
    """The demo tried again for a minute."""
    asked = list[str]()

    def refuses(command: str) -> str:
        asked.append(command)
        raise CommandFailed(f"ip netns exec ... failed with code 255: {why}")

    with pytest.raises(CommandFailed, match=r"Permission|not found"):
        demo.login(refuses, lambda _: None)
    assert asked == ["hostname"]


def test_one_that_is_never_reached_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "LOGIN_SECONDS", 0.05)
    with pytest.raises(CommandFailed, match="No route to host"):
        demo.login(lambda _: guest([]), lambda _: None)


def test_the_machines_page_says_from_where_it_is_asked() -> None:
    with demo.page("127.0.0.1") as url, urllib.request.urlopen(url, timeout=5) as answer:
        assert answer.read() == b"127.0.0.1"


@pytest.mark.parametrize(("text", "told"), [
    ("", "nat"), ('{"port": 9999}', "nat"), ('{"external": {"kind": "none"}}', None),
    ('{"external": {"kind": "nat", "cidr": "172.24.5.0/24"}}', None),
    ('{"external": {"kind": "interface", "interface": "eth1"}}', None)])
def test_a_demo_has_a_way_out_unless_something_was_said(tmp_path: Path, text: str, told: str | None) -> None:
    (tmp_path / KEPT_FILE).write_text(text)
    assert demo.way_out(tmp_path) == told


def test_a_demo_on_a_machine_without_room_for_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, said = list[tuple[str | None, ...]](), list[str]()

    def ensure_up(data: Path, *external: str | None) -> None:
        started.append(external)
        if external:
            raise NotJoined("there is no room")
    monkeypatch.setattr(demo, "ensure_up", ensure_up)
    demo.start(tmp_path, said.append)
    assert started == [("nat",), ()] and said == ["there is no room"]
