"""`nacre token create` on a control, `nacre join TOKEN` on the machine that shall be a host: one line each."""

import asyncio
import json
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from nacre import __version__
from nacre.base.errors import NacreError
from nacre.base.rpc.addresses import host_of
from nacre.cli.keys import with_keys
from nacre.cli.processes import folder
from nacre.cli.processes.membership import Membership, keep, membership
from nacre.config import Settings, is_loopback, load
from nacre.identity.keys.ring import Ring, Signer
from nacre.identity.keys.store import JOIN_SECONDS, Keys

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class NotJoined(NacreError):
    """This machine cannot become a host as it is; the message says what to do."""


class Span(click.ParamType):  # type: ignore[type-arg]
    """A length of time, as 30m, 12h, 7d; in seconds. At most what the keys of tokens are kept for."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", str(value))
        if not found:
            self.fail(f"{value!r} is no length of time: write 30m, 12h or 7d.", param, ctx)
        seconds = float(found[1]) * _UNITS[found[2]]
        if seconds > JOIN_SECONDS:
            self.fail(f"A token is good for at most {JOIN_SECONDS / 86400:.0f}d.", param, ctx)
        return seconds


@click.group()
def token() -> None:
    """Tokens by which machines become hosts of the cloud."""


@token.command("create")
@click.option("--expires", "seconds", type=Span(), default="1h", show_default=True, help="as 30m, 12h, 7d")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@click.option("--data", type=click.Path(path_type=Path), default=None, help="the cloud's data folder [~/.nacre]")
def create(seconds: float, as_json: bool, data: Path | None) -> None:
    """Print a token, for one machine: `nacre join TOKEN` there. Whoever has it can become a host: keep it secret."""
    from nacre.cloud import joining

    async def step(keys: Keys) -> tuple[str, list[str], int]:
        text, made = await joining.create(keys.db, keys.clock, Signer(Ring(keys, "join")), seconds)
        return text, [c.address for c in made.controls], made.expires
    text, addresses, expires = with_keys(load(data), step)
    if as_json:
        click.echo(json.dumps({"token": text, "controls": addresses, "expires": expires}))
    else:
        click.echo(text)
        click.echo(f"It counts once, until {datetime.fromtimestamp(expires, UTC):%Y-%m-%d %H:%M} UTC.", err=True)
    if all(is_loopback(host_of(address)) for address in addresses):
        click.echo("Only this machine can join: the cloud's controls answer on the loopback only. For others start "
                   "them with `host` (NACRE_HOST) or `rpc.listen` set to an address that the others reach.", err=True)


@click.command()
@click.argument("given", metavar="TOKEN")
@click.option("--name", default=None, help="of the host in the cloud [this machine's]")
@click.option("--address", default="", help="by which the cloud reaches this machine [the one on the way to it]")
@click.option("--hypervisor", type=click.Choice(["libvirt", "fake"]), default=None,
              help="libvirt: real guests, needs root; fake: none, for trying")
@click.option("--data", type=click.Path(path_type=Path), default=None, help="the host's data folder [~/.nacre]")
def join(given: str, name: str | None, address: str, hypervisor: str | None, data: Path | None) -> None:
    """Make this machine a host of the cloud that gave TOKEN (-: read it from the standard input), and start it."""
    from rich.console import Console

    from nacre.cli import up

    settings = load(data, hypervisor=hypervisor)
    console = Console(stderr=True, highlight=False)
    _check(settings)
    text = sys.stdin.readline().strip() if given == "-" else given
    with console.status("joining"):
        member = _join(settings, text, name or settings.host_name, address)
    console.print(f"[green]✓[/] this machine is host {member.name} of cloud {member.cloud}")
    with console.status("starting"):
        up.bring_up(settings, lambda what, took: console.print(f"[green]✓[/] {what} [dim]{took:.1f} s[/]"))
    console.print("It takes servers now. `nacre down` stops its processes (servers keep running), `nacre up -d` starts "
                  "them again, also after a reboot.")


def _check(settings: Settings) -> None:
    """Raises NotJoined for a machine that cannot be a host, before a token is used for it."""
    from nacre.cli.up import supervisor_pid

    if settings.hypervisor == "libvirt" and os.geteuid() != 0:
        raise NotJoined("Guests need root: use `sudo nacre join TOKEN`.")
    if (settings.data / "control").exists():
        raise NotJoined(f"{settings.data} holds a cloud of its own: name another folder with --data.")
    if supervisor_pid(settings.data) is not None:
        raise NotJoined(f"A host runs in {settings.data}: `nacre down` first, or name another folder with --data.")


def _join(settings: Settings, text: str, name: str, address: str) -> Membership:
    """Raises NotJoined, NotPrepared, and what the cloud says."""
    from nacre.base.rpc.keys import load_keys
    from nacre.cloud import join_client
    from nacre.cloud.contract import JoinRequest
    from nacre.cloud.tokens import split

    before, asked = membership(settings.data), split(text)[0]
    if before is not None and before.cloud != asked.cloud:
        raise NotJoined(f"{settings.data} is that of a host of cloud {before.cloud}, and the token is of cloud "
                        f"{asked.cloud}: name another folder with --data, or remove that one when nothing in it is "
                        "needed.")
    folder.prepare(settings.data, None, control=False)  # what the start would refuse, while the token still counts
    keys = load_keys(settings.data / "node" / "rpc-key.json")
    joined = asyncio.run(join_client.join(JoinRequest(
        token=text, name=name, public_key=keys.public, version=__version__)))
    member = Membership(cloud=joined.cloud, name=name, vxlan_port=joined.vxlan_port,
                        hypervisor=settings.hypervisor, address=address)
    keep(settings.data, member, joined)
    return member
