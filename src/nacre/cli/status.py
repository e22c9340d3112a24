"""`nacre status`: what runs, what it uses, and whether it answers."""

import json
from pathlib import Path
from typing import Any

import click

from nacre.cli.up import supervisor_pid
from nacre.config import load

PROCESSES = ("supervisor", "control", "node")


def process(data: Path, name: str) -> dict[str, Any]:
    """One process: its id and memory (proportional share, MB)."""
    try:
        pid = int((data / "run" / f"{name}.pid").read_text())
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return {"name": name, "running": False}
    return {"name": name, "running": state not in "ZX", "pid": pid, "memory_mb": _pss(pid)}


def _pss(pid: int) -> float | None:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return round(int(line.split()[1]) / 1024, 1)
    except OSError:
        pass
    return None


def facts(data: Path) -> dict[str, Any]:
    """Everything that is shown."""
    found: dict[str, Any] = {
        "data": str(data), "running": supervisor_pid(data) is not None,
        "processes": [process(data, name) for name in PROCESSES], "services": [], "agents": [], "error": None}
    if not found["running"]:
        return found
    from nacre.cli.client import ApiError, Client

    try:
        client = Client(data, "nacre")
        found["url"] = client.auth["auth_url"]
        found["services"] = [
            {k: s.get(k) for k in ("binary", "host", "status", "state")}
            for s in client.get("compute", "/os-services")["services"]]
        found["agents"] = [
            {"binary": a["agent_type"], "host": a["host"], "status": "enabled" if a["admin_state_up"] else "disabled",
             "state": "up" if a["alive"] else "down"} for a in client.get("network", "/agents")["agents"]]
    except ApiError as error:
        found["error"] = error.message
    return found


@click.command()
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@click.option("--data", type=click.Path(path_type=Path), default=None, help="the cloud's data folder [~/.nacre]")
@click.pass_context
def status(ctx: click.Context, as_json: bool, data: Path | None) -> None:
    """Show what runs, and whether it answers. Exit code 1 unless all of it does."""
    found = facts(load(data).data)
    if as_json:
        click.echo(json.dumps(found))
    else:
        _show(found)
    fine = found["running"] and not found["error"] and all(p["running"] for p in found["processes"])
    ctx.exit(0 if fine else 1)


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not found["running"]:
        console.print(f"Nothing runs in {found['data']}. Start it with `nacre up -d`.")
        return
    table = Table("process", "state", "pid", "memory", box=None, title_justify="left")
    for p in found["processes"]:
        table.add_row(p["name"], "up" if p["running"] else "[red]down[/]", str(p.get("pid", "")),
                      f"{p['memory_mb']} MB" if p.get("memory_mb") else "")
    console.print(table)
    if found["services"] or found["agents"]:
        table = Table("service", "host", "status", "state", box=None)
        for s in (*found["services"], *found["agents"]):
            state = s["state"] if s["state"] == "up" else f"[red]{s['state']}[/]"
            table.add_row(s["binary"], s["host"], s["status"], state)
        console.print(table)
    if found["error"]:
        console.print(f"[red]{found['error']}[/]")
