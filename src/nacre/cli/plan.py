"""`nacre plan`: where so many servers of a flavor would go now, or why not. Nothing is changed."""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from nacre.cli.client import ApiError, Client, plain, screen


def ask(client: Client, wanted: dict[str, Any], hints: dict[str, Any]) -> dict[str, Any]:
    """The plan. wanted: flavor and image (names or ids), count, availability_zone. Raises ApiError."""
    flavors = client.get("compute", "/flavors")["flavors"]
    images = client.get("image", "/images", params={"status": "active"})["images"]
    body: dict[str, Any] = {"flavorRef": _one("flavor", wanted["flavor"], flavors), "count": wanted["count"],
                            "imageRef": _one("image", wanted["image"], images)}
    if wanted["zone"]:
        body["availability_zone"] = wanted["zone"]
    plan: dict[str, Any] = client.post("compute", "/os-nacre-plans", {"plan": body, "os:scheduler_hints": hints})
    return plan["plan"]  # type: ignore[no-any-return]


def _one(kind: str, wanted: str | None, found: list[dict[str, Any]]) -> str:
    """The id of what has this name or id; without one, of the first there is."""
    if not found:
        how = f": make one with `nacre demo`, or `openstack {kind} create`" if kind == "image" else ""
        raise ApiError(f"There is no {kind} in this cloud yet{how}.")
    ids = [str(x["id"]) for x in found if wanted in (None, x["id"], x["name"])]
    if not ids:
        raise ApiError(f"There is no {kind} {wanted}; there are: {', '.join(sorted(str(x['name']) for x in found))}.")
    return ids[0]


def show(plan: dict[str, Any], console: Console) -> None:
    """Print a plan for a person."""
    plan = plain(plan, markup=True)
    console.print(f"{plan['placed']} of {plan['count']} would be placed")
    if plan["hosts"]:
        table = Table(box=None)
        table.add_column("host")
        table.add_column("servers", justify="right")
        table.add_column("directory")
        for host in plan["hosts"]:
            table.add_row(host["host"], str(host["count"]), host.get("selected_dir", ""))
        console.print(table)
    if plan["reason"]:
        console.print(f"[yellow]why not{' all' if plan['placed'] else ''}[/]: {plan['reason']}")
    if plan["nearest"]:
        console.print(f"nearest: {plan['nearest']}")


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=None, help="the cloud's data folder [~/.nacre]")
@click.option("--flavor", required=True, help="name or id")
@click.option("--image", default=None, help="name or id [any]")
@click.option("--count", type=click.IntRange(1, 1000), default=1, help="how many servers [1]")
@click.option("--zone", default=None, help="availability zone")
@click.option("--hint", multiple=True, metavar="NAME=VALUE", help="a scheduler hint, as of `openstack server create`")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def plan(data: Path | None, as_json: bool, hint: tuple[str, ...], **wanted: Any) -> None:
    """Show where servers would go now, or why not. Changes nothing."""
    from nacre.config import data_folder

    client = Client(data_folder(data), "nacre")
    found = ask(client, wanted, hints(hint))
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(found, screen())


def hints(given: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE as hints: a name given several times is a list, a value that is a JSON number is a number."""
    found: dict[str, Any] = {}
    for item in given:
        name, sign, text = item.partition("=")
        if not sign or not name:
            raise click.UsageError(f"--hint {item}: NAME=VALUE is wanted")
        value: Any = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text
        before = found.get(name)
        found[name] = value if before is None else [*(before if isinstance(before, list) else [before]), value]
    return found
