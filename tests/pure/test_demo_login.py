"""The demo logs in to a guest that ran while its host's switch stood still: it waits, and not for ever."""

import pytest

from nacre.base.shell import CommandFailed
from nacre.cli import demo


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
