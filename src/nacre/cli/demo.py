"""`nacre demo`: the main job, from nothing to a shell in a guest, through the public APIs. A second run changes nothing
that is in place: every step looks for what it would make."""

import asyncio
import http.server
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from nacre.base import shell
from nacre.base.durable.files import write_whole
from nacre.cli.client import ApiError, Client
from nacre.cli.database import DEMO as NAME
from nacre.cli.processes.external import NotJoined
from nacre.cli.trace import show, timeline
from nacre.cli.up import NotStarted, ensure_up, network, running_settings, upload
from nacre.config import data_folder, kept_external, load

BOOT_SECONDS = 300.0
LOGIN_SECONDS = 60.0
#: What ssh says of a guest that it does not reach, or that is not ready for it. Nothing else gets better by waiting.
UNREACHED = ("ssh: connect to host", "banner exchange", "kex_exchange_identification", "Connection closed by",
             "Connection reset by")
#: How long a router may take until its gateway works.
GATEWAY_SECONDS = 30.0


class Progress:
    """Says what is going on, and remembers how long each step took."""

    def __init__(self, console: Console):
        self.console = console
        self.steps: list[dict[str, Any]] = []

    @contextmanager
    def step(self, text: str) -> Iterator[Callable[[str], None]]:
        begin = time.monotonic()
        with self.console.status(text) as status:
            yield lambda more: status.update(f"{text}: {more}")
        took = time.monotonic() - begin
        self.steps.append({"step": text, "seconds": round(took, 3)})
        self.console.print(f"[green]✓[/] {text} [dim]{took:.1f} s[/]")


def key_pair(client: Client, data: Path) -> Path:
    """The private key's file; made here, and only the public half leaves the machine."""
    file = data / "demo_key"
    if not file.exists():
        private = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
        write_whole(file, private)
    key = serialization.load_ssh_private_key(file.read_bytes(), None)
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    listed = client.get("compute", "/os-keypairs")["keypairs"]
    known = {k["keypair"]["name"]: k["keypair"]["public_key"] for k in listed}
    if known.get(NAME, "").split()[:2] != public.split()[:2]:
        if NAME in known:
            client.request("DELETE", "compute", f"/os-keypairs/{NAME}")
        client.post("compute", "/os-keypairs", {"keypair": {"name": NAME, "type": "ssh", "public_key": public}})
    return file


def image(client: Client, disk: Path) -> str:
    """The tiny guest's image id; uploaded once."""
    for found in client.get("image", "/images", params={"name": "tiny"})["images"]:
        if found["status"] == "active" and found["disk_format"] == "qcow2":  # the other kind boots nothing
            return str(found["id"])
    return upload(client, {"disk_format": "qcow2", "min_ram": 96}, _chunks(disk))


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while chunk := source.read(1 << 20):
            yield chunk


def security_group(client: Client) -> None:
    """A group named demo that lets ping and ssh in."""
    groups = client.get("network", "/security-groups",
                        params={"name": NAME, "project_id": client.project_id})["security_groups"]
    group = groups[0] if groups else client.post("network", "/security-groups", {"security_group": {
        "name": NAME, "description": "ping and ssh"}})["security_group"]
    have = {(r["direction"], r["protocol"], r["port_range_min"]) for r in group["security_group_rules"]}
    for protocol, port in (("icmp", None), ("tcp", 22)):
        if ("ingress", protocol, port) not in have:
            client.post("network", "/security-group-rules", {"security_group_rule": {
                "security_group_id": group["id"], "direction": "ingress", "ethertype": "IPv4", "protocol": protocol,
                "port_range_min": port, "port_range_max": port}})


def server(client: Client, image_id: str, network_id: str) -> dict[str, Any]:
    """The demo server, ACTIVE: the one that is there, or a new one. Raises ApiError with the fault's words."""
    found = client.get("compute", "/servers/detail", params={"name": f"^{NAME}$"})["servers"]
    for old in [s for s in found if s["status"] == "ERROR"]:
        client.request("DELETE", "compute", f"/servers/{old['id']}")
    alive = [s for s in found if s["status"] != "ERROR"]
    if not alive:
        flavors = client.get("compute", "/flavors/detail")["flavors"]
        flavor = min((f for f in flavors if f["ram"] >= 96), key=lambda f: (f["ram"], f["disk"]))
        made = client.post("compute", "/servers", {"server": {
            "name": NAME, "imageRef": image_id, "flavorRef": flavor["id"], "key_name": NAME,
            "networks": [{"uuid": network_id}], "security_groups": [{"name": NAME}],
            "metadata": {"made-by": "nacre demo"}}})["server"]
    else:
        made = alive[0]
        if alive[0]["status"] == "SHUTOFF":
            client.post("compute", f"/servers/{made['id']}/action", {"os-start": None})
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        now = client.get("compute", f"/servers/{made['id']}")["server"]
        if now["status"] == "ACTIVE":
            return dict(now)
        if now["status"] == "ERROR":
            raise ApiError(f"The server failed: {now.get('fault', {}).get('message')}. "
                           f"See `nacre trace {now['id']}`.")
        time.sleep(0.1)
    raise ApiError(f"The server was not ACTIVE within {BOOT_SECONDS:.0f} s. See `nacre trace {made['id']}`.")


def ready_line(client: Client, server_id: str, tell: Callable[[str], None]) -> str:
    """The guest's own READY line from its console."""
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        output = client.post("compute", f"/servers/{server_id}/action", {"os-getConsoleOutput": {}})["output"]
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        if ready := [line for line in lines if re.search(r"\bREADY\b", line)]:
            return str(ready[-1])
        if lines:
            tell(lines[-1][:60])
        time.sleep(0.2)
    raise ApiError(f"The guest did not report READY within {BOOT_SECONDS:.0f} s. "
                   f"Its console: openstack --os-cloud demo console log show {server_id}")


def address(detail: dict[str, Any]) -> str:
    """The server's own on its network."""
    return str(next(a["addr"] for a in detail["addresses"][NAME]
                    if a["version"] == 4 and a.get("OS-EXT-IPS:type") != "floating"))


def namespace(data: Path, network_id: str) -> str:
    """The network's namespace on this host: where its DHCP server lives, and the way in for ssh."""
    from nacre.cli.supervisor import cloud_id
    from nacre.cloud.node import guests_folder
    from nacre.node.hypervisor.libvirt.places import host_names

    settings = load(data)
    return host_names(cloud_id(data), guests_folder(data), tuple(settings.node.disks)).namespace(network_id)


def ssh(space: str, key: Path, host: str, command: str) -> str:
    """What `command` prints in the guest, which is reached from a namespace, or ("") from this machine itself. Raises
    CommandFailed."""
    options = [f"-o{o}" for o in ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR",
                                  "ConnectTimeout=10", "BatchMode=yes")]
    out = asyncio.run(shell.run(
        [*(("ip", "netns", "exec", space) if space else ()), "ssh", *options, "-i", str(key), f"root@{host}", command],
        limits=shell.Limits(seconds=60)))
    return out.decode(errors="replace").strip()


def way_out(data: Path) -> str | None:
    """What `up --external` is told for a demo: NAT, unless something was said before."""
    return None if kept_external(data).kind else "nat"


def start(data: Path, tell: Callable[[str], None]) -> None:
    """The cloud runs; with a way out, where this machine has room for one."""
    try:
        ensure_up(data, way_out(data))
    except NotJoined as error:
        tell(error.message)
        ensure_up(data)


class Outside(msgspec.Struct, frozen=True):
    """What the demo's router stands between. router: its id; network: the external one's; gateway: the machine's
    address on that; address: the router's own."""

    router: str
    network: str
    gateway: str
    address: str


def outside(data: Path, client: Client) -> Outside | None:
    """The demo's router, when the port of its gateway works; None if it has none, or nobody here forwards, or it does
    not within GATEWAY_SECONDS."""
    admin = Client(data, "nacre")
    routers = client.get("network", "/routers", params={"name": NAME, "project_id": client.project_id})["routers"]
    agents = admin.get("network", "/agents", params={"agent_type": "L3 agent"})["agents"]
    if not routers or not routers[0]["external_gateway_info"] or not any(
            agent["alive"] and agent["admin_state_up"] for agent in agents):
        return None
    router, found = routers[0]["id"], routers[0]["external_gateway_info"]
    fixed = next((each for each in found["external_fixed_ips"] if "." in each["ip_address"]), None)
    deadline = time.monotonic() + GATEWAY_SECONDS
    while fixed is not None and time.monotonic() < deadline:
        ports = admin.get("network", "/ports", params={
            "device_id": router, "device_owner": "network:router_gateway"})["ports"]
        if any(port["status"] == "ACTIVE" for port in ports):
            subnet = admin.get("network", f"/subnets/{fixed['subnet_id']}")["subnet"]
            return Outside(router, found["network_id"], subnet["gateway_ip"], fixed["ip_address"])
        time.sleep(0.2)
    return None


def floating_ip(client: Client, server_id: str, network_id: str) -> str:
    """The address by which the outside reaches the server: the one that it has, or a new one."""
    port = client.get("network", "/ports", params={"device_id": server_id})["ports"][0]["id"]
    found = client.get("network", "/floatingips", params={"port_id": port})["floatingips"]
    made = found[0] if found else client.post("network", "/floatingips", {"floatingip": {
        "floating_network_id": network_id, "port_id": port}})["floatingip"]
    return str(made["floating_ip_address"])


class Page(http.server.BaseHTTPRequestHandler):
    """Says from where it is asked."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.client_address[0].encode())

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def page(address: str) -> Iterator[str]:
    """The URL of a page that this machine serves there meanwhile."""
    with http.server.ThreadingHTTPServer((address, 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{address}:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def through(client: Client, server_id: str, way: Outside, connect: Callable[[str, str], str],
            tell: Callable[[str], None]) -> dict[str, Any]:
    """A guest gets a page of this machine's by its router, and is then logged in to by a floating IP of its own.
    connect: runs a command in the guest: by that address, or ("") by its network. Raises CommandFailed."""
    with page(way.gateway) as url:
        seen = login(lambda _: connect("", f"timeout 5 wget -q -O - {url}"), tell)
    floating = floating_ip(client, server_id, way.network)
    hostname = login(lambda command: connect(floating, command), tell)
    return {"floating_ip": floating, "hostname": hostname, "seen_as": seen, "router": way.address}


def login(connect: Callable[[str], str], tell: Callable[[str], None]) -> str:
    """The guest's hostname. One that ran while the host's Open vSwitch stood still is reached some seconds after that
    goes on. connect: runs a command in the guest. Raises CommandFailed: it is not reached in LOGIN_SECONDS, or refuses.
    """
    deadline = time.monotonic() + LOGIN_SECONDS
    while True:
        try:
            return connect("hostname")
        except shell.CommandFailed as error:
            if time.monotonic() >= deadline or not any(words in str(error) for words in UNREACHED):
                raise
            tell(str(error)[-60:])
            time.sleep(0.5)


def run(data: Path, console: Console) -> dict[str, Any]:
    """Everything above, in order. Answers the facts that `--json` prints."""
    from nacre import guest
    if running_settings(data).hypervisor == "fake":
        raise NotStarted(f"The cloud in {data} simulates its guests, and there is nothing in them to log in to: "
                         "`nacre down` first, or name another folder with --data.")
    progress = Progress(console)
    with progress.step("starting the cloud") as tell:
        start(data, tell)
    with progress.step("building the tiny guest from Debian packages") as tell:
        images = asyncio.run(guest.build(data / "guest", tell))
    client = Client(data, "demo")
    with progress.step("key pair, security group, network"):
        key = key_pair(client, data)
        security_group(client)
        network_id = network(client)
    with progress.step("uploading the image"):
        image_id = image(client, images.disk)
    with progress.step("booting the server"):
        detail = server(client, image_id, network_id)
    with progress.step("waiting for the guest itself") as tell:
        ready = ready_line(client, detail["id"], tell)
    host = address(detail)
    space = namespace(data, network_id)
    with progress.step("logging in over ssh") as tell:
        hostname = login(lambda command: ssh(space, key, host, command), tell)
        metadata = json.loads(ssh(
            space, key, host, "timeout 5 wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json"))
    out = None
    if (way := outside(data, client)) is not None:
        with progress.step("reaching the outside from it, and it from outside") as tell:
            out = through(client, detail["id"], way, lambda address, command: ssh(
                "" if address else space, key, address or host, command), tell)
    reached = f"ssh -i {key} root@{out['floating_ip']}" if out else f"ip netns exec {space} ssh -i {key} root@{host}"
    return {"server": {"id": detail["id"], "name": detail["name"], "status": detail["status"], "address": host},
            "outside": out, "ready": ready, "hostname": hostname, "metadata": metadata, "steps": progress.steps,
            "timeline": timeline(client, detail["id"])["actions"],
            "ssh": reached}


def tell_next(facts: dict[str, Any], data: Path, console: Console) -> None:
    """What happened, and what to try now."""
    console.print(f"\nThe guest says: [bold]{facts['ready']}[/]")
    console.print(f"Its hostname over ssh: [bold]{facts['hostname']}[/]; its metadata: "
                  f"uuid {facts['metadata']['uuid']}, meta {facts['metadata'].get('meta')}\n")
    if out := facts["outside"]:
        console.print(f"From outside it is {out['floating_ip']}; the page that it fetched was asked for by "
                      f"{out['seen_as']}\n")
    show({"actions": facts["timeline"][:1]}, console)
    console.print("\n[bold]Try next[/]")
    for command in (facts["ssh"], f"export OS_CLIENT_CONFIG_FILE={data}/clouds.yaml",
                    "openstack --os-cloud demo server list",
                    "openstack --os-cloud demo server create --image tiny --flavor m1.nano --network demo --wait two",
                    "./nacre trace demo", "./nacre status", "./nacre down"):
        console.print(f"  {command}", soft_wrap=True, highlight=False)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="end with one JSON object of the same facts")
@click.option("--data", type=click.Path(path_type=Path), default=None, help="the cloud's data folder")
def demo(as_json: bool, data: Path | None) -> None:
    """Start the cloud, boot a real guest through the API, log in to it, and show where the time went."""
    folder = data_folder(data)
    console = Console(stderr=as_json)
    facts = run(folder, console)
    if as_json:
        click.echo(json.dumps(facts))
    else:
        tell_next(facts, folder, console)
