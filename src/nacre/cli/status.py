"""`nacre status`: what runs here and what it uses, and every process of the cloud: whether it lives."""

import asyncio
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from nacre.base.errors import NacreError
from nacre.cli.processes import external
from nacre.cli.processes.accounts import acting, whose
from nacre.cli.processes.membership import controls, membership
from nacre.cli.up import roles_of, running_settings, supervised
from nacre.config import Settings

#: By which word of its command line a process is known, where it is not its name.
WORDS = {"supervisor": "supervise"}


def process(data: Path, name: str) -> dict[str, Any]:
    """One process: its id and memory (proportional share, MB)."""
    import psutil

    try:
        pid = int((data / "run" / f"{name}.pid").read_text())
        found = psutil.Process(pid)
        running = WORDS.get(name, name) in found.cmdline()  # a zombie has no words
    except (OSError, ValueError, psutil.Error):
        return {"name": name, "running": False}
    try:
        memory = round(found.memory_full_info().pss / 2**20, 1)
    except psutil.Error:  # another user's
        memory = None
    return {"name": name, "running": running, "pid": pid, "memory_mb": memory}


def members(settings: Settings) -> list[dict[str, Any]]:
    """Every process of the cloud as the database knows it, controls first. seconds: since its last sign of life; that
    of a host is refreshed once a minute. Raises NacreError."""
    import sqlalchemy as sa

    from nacre.base.clock import RealClock
    from nacre.base.db import Database
    from nacre.base.durable import processes
    from nacre.cli.database import present, reached
    from nacre.scheduler.tables import compute_hosts

    def unit(connection: sa.Connection) -> list[dict[str, Any]]:
        clock = RealClock()
        now = processes.database_now(connection, clock)
        heard: dict[str, datetime] = {row.host: row.updated_at for row in connection.execute(
            sa.select(compute_hosts.c.host, compute_hosts.c.updated_at))}
        return [_member(p, now, p.seen_at if p.role == "control" else heard.get(p.name))
                for p in processes.find(connection, clock)]

    async def run(url: str) -> list[dict[str, Any]]:
        db = Database(url, inline=True)
        try:
            return await db.read(unit)
        finally:
            await db.close()
    with acting(whose(settings.data)):
        present(settings)
        return reached(settings.database, lambda url: asyncio.run(run(url)))


def _member(process: Any, now: datetime, seen: datetime | None) -> dict[str, Any]:
    state = "up" if process.alive else "down"
    return {"role": process.role, "name": process.name, "address": process.address, "version": process.version,
            "state": state if process.role == "control" else None,
            "seconds": None if seen is None else round(max(0.0, (now - seen).total_seconds()), 1)}


def facts(settings: Settings) -> dict[str, Any]:
    """Everything that is shown."""
    data = settings.data
    pid, roles = supervised(data)
    here = [process(data, name) for name in ("supervisor", *(roles or roles_of(data)))]
    if pid is None:  # `nacre control` in the foreground has none
        here = [p for p in here if p["running"] and p["name"] == "control"] or here
    found: dict[str, Any] = {"data": str(data), "running": any(p["running"] for p in here), "members": [],
                             "services": [], "agents": [], "external": None, "error": None, "processes": here}
    if not found["running"]:
        return found
    found["external"] = external.state(settings) if os.geteuid() == 0 else None
    if (member := membership(data)) is not None:
        return found | {"host": member.name, "cloud": member.cloud, "controls": [
            {"name": name, "address": address} for name, address in controls(data)]}
    try:
        found["members"] = members(settings)
        if (data / "clouds.yaml").exists():
            _ask(data, found)
    except NacreError as error:
        found["error"] = error.message
    return found


def _ask(data: Path, found: dict[str, Any]) -> None:
    """What the API says, which hears hosts every few seconds. Raises ApiError."""
    from nacre.cli.client import Client

    client = Client(data, "nacre")
    found["url"] = client.auth["auth_url"]
    services = client.get("compute", "/os-services")["services"]
    found["services"] = [{k: s.get(k) for k in ("binary", "host", "status", "state")} for s in services]
    found["agents"] = [
        {"binary": a["agent_type"], "host": a["host"], "status": "enabled" if a["admin_state_up"] else "disabled",
         "state": "up" if a["alive"] else "down"} for a in client.get("network", "/agents")["agents"]]
    states = {s["host"]: s["state"] for s in services if s["binary"] == "nova-compute"}
    for each in found["members"]:
        if each["role"] == "node":
            each["state"] = states.get(each["name"], "not heard yet")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@click.option("--data", type=click.Path(path_type=Path), default=None, help="the cloud's data folder [~/.nacre]")
@click.pass_context
def status(ctx: click.Context, as_json: bool, data: Path | None) -> None:
    """Show what runs here, whether it answers, and every process of the cloud. Exit code 1 unless all here does."""
    found = facts(running_settings(data))
    if as_json:
        click.echo(json.dumps(found))
    else:
        from nacre.cli.client import plain

        _show(plain(found, markup=True))
    fine = found["running"] and not found["error"] and all(p["running"] for p in found["processes"])
    ctx.exit(0 if fine else 1)


def _show(found: dict[str, Any]) -> None:
    from rich.table import Table

    from nacre.cli.client import screen, start_with

    console = screen()
    if not found["running"]:
        console.print(f"Nothing runs in {found['data']}. Start it with `{start_with(Path(found['data']))}`.")
        return
    table = Table("process here", "state", "pid", "memory", box=None, title_justify="left")
    for p in found["processes"]:
        table.add_row(p["name"], "up" if p["running"] else "[red]down[/]", str(p.get("pid", "")),
                      f"{p['memory_mb']} MB" if p.get("memory_mb") else "")
    console.print(table)
    if "host" in found:
        console.print(f"host {found['host']} of cloud {found['cloud']}, controls "
                      + ", ".join(f"{c['name']} at {c['address']}" for c in found["controls"]))
    if found["members"]:
        table = Table("role", "name", "state", "last heard", "version", "address", box=None)
        for m in found["members"]:
            ago = "never" if m["seconds"] is None else f"{m['seconds']:.0f} s ago"
            table.add_row(m["role"], m["name"], _state(m["state"] or ""), ago, m["version"], m["address"])
        console.print(table)
    if found["services"]:
        table = Table("service", "host", "status", "state", box=None)
        for s in (*found["services"], *found["agents"]):
            table.add_row(s["binary"], s["host"], s["status"], _state(s["state"]))
        console.print(table)
    if found["external"]:
        console.print(external.sentence(found["external"]))
        for wrong in found["external"]["wrong"]:
            console.print(f"[red]{wrong}[/]")
    if found["error"]:
        console.print(f"[red]{found['error']}[/]")


def _state(state: str) -> str:
    return state if state == "up" else f"[red]{state}[/]"
