"""`nacre trace SERVER`: where the time of a server's actions went, step by step."""

import contextlib
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
from rich.console import Console
from rich.table import Table

from nacre.cli.client import ApiError, Client, Missing, plain, screen


def timeline(client: Client, server: str) -> dict[str, Any]:
    """The actions of a server (name or id), oldest first, each with its steps in milliseconds from its start."""
    server_id = _find(client, server)
    actions = client.get("compute", f"/servers/{server_id}/os-instance-actions")["instanceActions"]
    result = []
    for action in reversed(actions):
        path = f"/servers/{server_id}/os-instance-actions/{action['request_id']}"
        full = client.get("compute", path)["instanceAction"]
        begin = _when(full["start_time"])
        steps = [{
            "step": x["event"], "host": x.get("host"), "result": x.get("result"), "details": x.get("details"),
            "at_ms": _ms(begin, x["start_time"]),
            "took_ms": _ms(_when(x["start_time"]), x["finish_time"]) if x.get("finish_time") else None,
        } for x in sorted(full.get("events") or [], key=lambda x: x["start_time"])]
        result.append({"action": full["action"], "request_id": full["request_id"], "started": full["start_time"],
                       "message": full.get("message"), "steps": steps})
    return {"server": server_id, "actions": result}


def _find(client: Client, server: str) -> str:
    wanted = {"name": f"^{re.escape(server)}$"}
    found = client.get("compute", "/servers", params=wanted)["servers"]
    if not found:
        with contextlib.suppress(ApiError):  # for administrators only
            found = client.get("compute", "/servers", params={**wanted, "all_tenants": "1"})["servers"]
    if len(found) == 1:
        return str(found[0]["id"])
    if len(found) > 1:
        raise ApiError(f"{len(found)} servers are called {server}; give the id.")
    try:
        return str(client.get("compute", f"/servers/{quote(server, safe='')}")["server"]["id"])
    except Missing:
        raise ApiError(f"There is no server {server}. Those there are: openstack server list --all-projects") from None


def _when(text: str) -> datetime:
    return datetime.fromisoformat(text.removesuffix("Z"))


def _ms(begin: datetime, text: str) -> float:
    return round((_when(text) - begin).total_seconds() * 1000, 1)


def show(facts: dict[str, Any], console: Console) -> None:
    """Print a timeline for a person."""
    for action in plain(facts["actions"], markup=True):
        table = Table(title=f"{action['action']}  {action['started']}", title_justify="left", box=None)
        for name, justify in (("step", "left"), ("at ms", "right"), ("took ms", "right"), ("host", "left"),
                              ("result", "left")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        for step in action["steps"]:
            took = "" if step["took_ms"] is None else f"{step['took_ms']:.1f}"
            outcome = " ".join(str(x) for x in (step["result"], step["details"]) if x)
            table.add_row(step["step"], f"{step['at_ms']:.1f}", took, step["host"] or "", outcome)
        console.print(table)


@click.command()
@click.argument("server")
@click.option("--cloud", default="nacre", help="which cloud of clouds.yaml asks")
@click.option("--json", "as_json", is_flag=True, help="one JSON object instead of a table")
@click.option("--data", type=click.Path(path_type=Path), default=None, help="the cloud's data folder")
def trace(server: str, cloud: str, as_json: bool, data: Path | None) -> None:
    """Show the steps of SERVER's actions with their milliseconds, and why it failed if it did."""
    from nacre.config import data_folder

    client = Client(data_folder(data), cloud)
    facts = timeline(client, server)
    detail = client.get("compute", f"/servers/{facts['server']}")["server"]
    facts |= {"name": detail["name"], "status": detail["status"], "fault": (detail.get("fault") or {}).get("message")}
    if as_json:
        click.echo(json.dumps(facts))
        return
    console, said = screen(), plain(facts, markup=True)
    console.print(f"[bold]{said['name']}[/] {said['server']} [bold]{said['status']}[/]")
    if said["fault"]:
        console.print(f"[red]why:[/] {said['fault']}")
    show(facts, console)
