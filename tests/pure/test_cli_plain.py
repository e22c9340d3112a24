"""What tenants and hosts wrote does nothing to the terminal of the operator who reads it."""

import io
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from nacre.base.errors import NacreError
from nacre.cli import hosts, main, plan, status, trace
from nacre.cli.client import plain

NASTY = "[red]x[/] [/nothing] \x1b[2J\x1b]0;owned\x07 \u202e \\[bold]"


def printed(text: str) -> str:
    console = Console(file=io.StringIO(), width=300, force_terminal=False)
    console.print(text)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_words_of_others_are_only_words() -> None:
    for text in (NASTY, "[link=http://x]here[/link]", "[", "a]b", "[[bold]]", "[@click=x]y[/]"):
        assert printed(plain(text, markup=True)).strip() == plain(text).strip()
        assert all(c.isprintable() for c in plain(text))
    clean = plain({"a": [NASTY, 1, None, {"b": "\x1b"}]})
    assert clean == {"a": [plain(NASTY), 1, None, {"b": "\N{REPLACEMENT CHARACTER}"}]}


class _Client:
    """An API whose every word is another's."""

    def get(self, service: str, path: str, **more: Any) -> dict[str, Any]:
        if "hosts" in path:
            return {"hosts": [{
                "name": NASTY, "state": NASTY, "status": "disabled", "version": NASTY, "servers": 1, "guests": 1,
                "orphans": 1, "capacity": None, "used": None, "last_beat": None, "disabled_reason": NASTY,
                "barred": NASTY}]}
        return {"orphans": [{
            "id": NASTY, "host": NASTY, "name": NASTY, "power": NASTY, "flavor": NASTY, "project_id": NASTY,
            "ports": [{"addresses": [NASTY]}], "adoptable": False, "why_not": NASTY}]}


@pytest.mark.parametrize("command", ["list", "orphans"])
def test_tables_of_hosts_show_names_as_they_are(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_client", lambda data: _Client())
    done = CliRunner().invoke(hosts.host, [command])
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.output and "\x07" not in done.output and "\u202e" not in done.output


def test_a_trace_and_the_status_show_words_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    step = {"step": NASTY, "host": NASTY, "result": NASTY, "details": NASTY, "at_ms": 1.0, "took_ms": None}
    console = Console(file=io.StringIO(), width=500)
    trace.show({"actions": [{"action": NASTY, "started": "t", "steps": [step]}]}, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in shown and "[/nothing]" in shown
    member = {"role": "node", "name": NASTY, "state": NASTY, "seconds": None, "version": NASTY, "address": NASTY}
    out = {"kind": "interface", "interface": NASTY, "wrong": [NASTY]}
    status._show(plain({"running": True, "data": "d", "processes": [], "services": [], "agents": [], "error": NASTY,
                        "members": [member], "external": out}, markup=True))
    assert "\x1b" not in capsys.readouterr().out


def test_a_plan_shows_words_as_they_are() -> None:
    console = Console(file=io.StringIO(), width=500)
    plan.show({"placed": 1, "count": 2, "hosts": [{"host": NASTY, "count": 1, "selected_dir": NASTY}],
               "reason": NASTY, "nearest": NASTY}, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in shown and shown.count("[/nothing]") == 4


def test_a_fault_is_one_line_of_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(prog_name: str) -> None:
        raise NacreError(f"the host says: {NASTY}\nand more")

    monkeypatch.setattr(main, "group", fails)
    with pytest.raises(SystemExit):
        main.main()
    said = capsys.readouterr().err
    assert "[red]x[/]" in said and not any(c in said for c in "\x1b\x07\u202e")
    assert said.splitlines()[1] == "and more"
