"""`nacre host`: the cloud's hosts, and the guests on them that the database does not know."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from nacre.cli.client import ApiError, Client, plain, screen
from nacre.config import data_folder

#: Seconds for which a host's answer to `accept` is waited for: it hears of it with its next report.
PATIENCE = 45.0
C = TypeVar("C", bound=Callable[..., Any])


def options(command: C) -> C:
    """What every one of these commands takes."""
    command = click.option("--json", "as_json", is_flag=True, help="one JSON object")(command)
    return click.option("--data", type=click.Path(path_type=Path), default=None,
                        help="the cloud's data folder [~/.nacre]")(command)


def _client(data: Path | None) -> Client:
    return Client(data_folder(data), "nacre")


def _say(found: dict[str, Any], as_json: bool, text: str) -> None:
    click.echo(json.dumps(found) if as_json else plain(text))


def hosts(client: Client) -> list[dict[str, Any]]:
    """All hosts, as the API shows them. Raises ApiError."""
    found: list[dict[str, Any]] = client.get("compute", "/os-nacre-hosts")["hosts"]
    return found


def barred(host: dict[str, Any]) -> str:
    """What a person should know of a host that takes no orders, and do next."""
    name, guests = host["name"], host["guests"]
    return (f"Host {name} takes no orders of this cloud: {host['barred']}.\n"
            f"Guests that run there: {guests}. They run on, and nothing of them is touched.\n"
            "Next: if this is the wrong database, `nacre down`, put the right one back, `nacre up`; if it is the right "
            f"one, `nacre host accept {name}`, then `nacre host orphans {name}`.")


@click.group()
def host() -> None:
    """The cloud's hosts: list, drain, remove, accept; and guests that only their host knows: orphans, adopt, forget."""


@host.command("list")
@options
def listed(as_json: bool, data: Path | None) -> None:
    """Show every host: state, guests, room, when it was heard last."""
    found = hosts(_client(data))
    if as_json:
        click.echo(json.dumps({"hosts": found}))
        return
    from rich.table import Table

    table = Table("host", "state", "servers", "guests", "orphans", "vcpus", "memory GB", "disk GB", "last beat",
                  box=None)
    for each in plain(found, markup=True):
        room, used = each["capacity"] or {}, each["used"] or {}
        state = each["state"] + (", drained" if each["status"] == "disabled" else "")
        table.add_row(
            each["name"], state if state == "up" else f"[yellow]{state}[/]", str(each["servers"]),
            "" if each["guests"] is None else str(each["guests"]),
            f"[red]{each['orphans']}[/]" if each["orphans"] else "0",
            *(f"{round(used[name] / unit, 2):g}/{room[name] / unit:g}" if room else ""
              for name, unit in (("vcpus", 1), ("memory_mb", 1024), ("disk_gb", 1))),
            _ago(each["last_beat"]))
    console = screen()
    console.print(table)
    for each in plain(found):
        if each["disabled_reason"]:
            console.print(f"{each['name']} is drained: {each['disabled_reason']}", markup=False)
        if each["barred"]:
            console.print(f"\n{barred(each)}", style="red", markup=False)


def _ago(moment: str | None) -> str:
    if moment is None:
        return "never"
    then = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    return f"{max(0.0, (datetime.now(UTC) - then).total_seconds()):.0f} s ago"


@host.command()
@click.argument("name")
@click.option("--reason", default="drained by `nacre host drain`", help="shown wherever the host is")
@click.option("--undo", is_flag=True, help="new servers may be placed there again")
@options
def drain(name: str, reason: str, undo: bool, as_json: bool, data: Path | None) -> None:
    """No new servers are placed on the host; those there stay. As `openstack compute service set --disable` does."""
    client = _client(data)
    found = client.get("compute", "/os-services", params={"binary": "nova-compute", "host": name})["services"]
    if not found:
        raise ApiError(f"There is no host {name} that reported; see `nacre host list`.")
    body = {"status": "enabled"} if undo else {"status": "disabled", "disabled_reason": reason}
    client.request("PUT", "compute", f"/os-services/{found[0]['id']}", json=body)
    _say({"host": name, **body}, as_json, f"Servers may be placed on {name} again." if undo else
         f"No new servers are placed on {name}. To undo it: `nacre host drain {name} --undo`.")


@host.command()
@click.argument("name")
@click.option("--dead", is_flag=True, help="the machine is gone for good, and nothing of it runs any more")
@options
def remove(name: str, dead: bool, as_json: bool, data: Path | None) -> None:
    """The host is not the cloud's any more: its key opens nothing. Refused while it has servers. Of a machine that is
    --dead, addresses and room are freed that it could not give back: be sure that it never runs again as it was."""
    _client(data).request("DELETE", "compute", f"/os-nacre-hosts/{name}", params={"dead": "true"} if dead else {})
    _say({"host": name, "removed": True}, as_json, f"Host {name} is removed. It may join again, under the same name.")


@host.command()
@click.argument("name")
@options
def accept(name: str, as_json: bool, data: Path | None) -> None:
    """This database is right for the host, though it has seen a later one or another cloud's. Nothing is ended by it:
    what the database does not know becomes orphans."""
    client = _client(data)
    client.request("POST", "compute", f"/os-nacre-hosts/{name}/action", json={"accept": None})
    end = time.monotonic() + PATIENCE
    while (found := next((h for h in hosts(client) if h["name"] == name), {})).get("barred"):
        if time.monotonic() > end:
            raise ApiError(f"Host {name} has not answered within {PATIENCE:.0f} s; it hears of it when it reports.")
        time.sleep(0.5)
    count = found.get("orphans", 0)
    _say({"host": name, "accepted": True, "orphans": count}, as_json, f"Host {name} takes this cloud's orders." + (
        f" It has {count} guests that the database does not know: `nacre host orphans {name}`." if count else ""))


@host.command()
@click.argument("name", required=False)
@options
def orphans(name: str | None, as_json: bool, data: Path | None) -> None:
    """Show guests that hosts have and the database does not know. They are kept as they are."""
    found = _client(data).get("compute", "/os-nacre-orphans", params={"host": name} if name else {})["orphans"]
    if as_json:
        click.echo(json.dumps({"orphans": found}))
        return
    if not found:
        click.echo("There are none.")
        return
    from rich.table import Table

    table = Table("guest", "host", "name", "power", "flavor", "project", "addresses", "adopt", box=None)
    for each in plain(found, markup=True):
        addresses = " ".join(a for port in each["ports"] for a in port["addresses"])
        table.add_row(each["id"], each["host"], each["name"] or "", each["power"], each["flavor"] or "",
                      each["project_id"] or "", addresses, "yes" if each["adoptable"] else f"no: {each['why_not']}")
    screen().print(table)
    click.echo("`nacre host adopt GUEST` makes it a server again, as it runs; `nacre host forget GUEST` ends it.")


@host.command()
@click.argument("guest")
@click.option("--name", default=None, help="of the server [as it was]")
@click.option("--project", "project_id", default=None, help="name or id of the project it shall belong to [as it was]")
@click.option("--host", default=None, help="whose guest, if several hosts say that they have it")
@click.option("--segment", "segments", multiple=True, metavar="flat:PHYSICAL|vlan:PHYSICAL:NUMBER",
              help="of your own networks, on which one of the guest's that is gone is made again")
@click.option("--address", "addresses", multiple=True, metavar="IP|MAC",
              help="that it keeps on a network which another project shares with its own")
@options
def adopt(guest: str, as_json: bool, data: Path | None, **given: Any) -> None:
    """A guest that only its host knows is a server again, with its ports and networks; it runs on meanwhile."""
    client, wish = _client(data), {name: value for name, value in given.items() if value}
    if "project_id" in wish:
        wish["project_id"] = _project(client, wish["project_id"])
    done = client.post("compute", f"/os-nacre-orphans/{guest}/action", {"adopt": wish})["adopted"]
    server, lost = done["server"], done["lost_security_groups"]
    text = f"Guest {server['id']} is server {server['name']} of project {server['project_id']}."
    for port in done["ports"]:
        text += f"\nIt has {' '.join([port['mac_address'], *port['addresses']])} on network {port['network_id']}."
    if lost:
        text += f"\nSecurity groups that are gone: {', '.join(lost)}; it is in its others, or in the default one."
    _say(done, as_json, text)


def _project(client: Client, wanted: str) -> str:
    found = client.get("identity", "/v3/projects")["projects"]
    ids = [str(p["id"]) for p in found if wanted in (p["id"], p["name"])]
    if len(ids) != 1:
        raise ApiError(f"There {'is no' if not ids else 'are several'} project {wanted}; there are: "
                       + ", ".join(sorted(f"{p['name']} ({p['id']})" for p in found)) + ".")
    return ids[0]


@host.command()
@click.argument("guest")
@click.option("--host", "at", default=None, help="whose guest, if others have it, too")
@options
def forget(guest: str, at: str | None, as_json: bool, data: Path | None) -> None:
    """A guest that only its host knows is ended there, with its disks. There is no way back."""
    wish = {"host": at} if at else None
    done = _client(data).post("compute", f"/os-nacre-orphans/{guest}/action", {"forget": wish})["forgotten"]
    _say(done, as_json, f"Host {done['host']} ends guest {done['id']}.")
