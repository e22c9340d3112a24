"""`nacre doctor`: what this machine has, what is missing, and the cure for each."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import msgspec

import nacre
from nacre.config import CLOUDS, Settings, is_loopback


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing looked at. state: ok, warning (works, but not as well) or failed (needs its cure)."""

    name: str
    state: str
    detail: str
    cure: str = ""


PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils", "libvirtd": "libvirt-daemon",
    "ovs-vswitchd": "openvswitch-switch", "ovs-ofctl": "openvswitch-common", "dnsmasq": "dnsmasq-base",
    "ip": "iproute2", "ethtool": "ethtool", "nft": "nftables",
}


#: What runs as root.
CODE = (Path(nacre.__file__).parent, Path(sys.prefix))


def check_root(_: Path) -> Finding:
    if os.geteuid() == 0:
        return Finding(name="permissions", state="ok", detail="running as root")
    return Finding(name="permissions", state="failed", detail="not root: the compute host needs it",
                   cure="run with sudo, or use `nacre up --hypervisor fake`, which needs no root")


def check_programs(_: Path) -> Finding:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = sorted({p for program, p in PROGRAMS.items() if not shutil.which(program, path=path)})
    if not missing:
        return Finding(name="programs", state="ok", detail="QEMU, libvirt, Open vSwitch, dnsmasq are installed")
    return Finding(name="programs", state="failed", detail="missing: " + ", ".join(missing),
                   cure="apt-get install " + " ".join(missing) + " (`./nacre demo` does it)")


def check_virtualisation(_: Path) -> Finding:
    """A /dev/kvm that opens may still hang every guest, so a guest is really tried."""
    if not os.path.exists("/dev/kvm"):
        return Finding(name="virtualisation", state="warning", detail="no /dev/kvm: guests run in QEMU emulation",
                       cure="enable VT-x/AMD-V in the firmware, or nested virtualisation on the outer host")
    from nacre.node.hypervisor.libvirt.host import kvm_works

    if kvm_works():
        return Finding(name="virtualisation", state="ok", detail="KVM runs a guest")
    return Finding(name="virtualisation", state="warning",
                   detail="/dev/kvm is there but a trial guest did not run: QEMU emulation is used",
                   cure="see the kernel's log (dmesg) for kvm; on a cloud machine ask for nested virtualisation")


def check_ovs(_: Path) -> Finding:
    if Path("/run/openvswitch/db.sock").exists():
        return Finding(name="open vswitch", state="ok", detail="ovsdb-server is running")
    if shutil.which("ovs-vswitchd", path=os.environ.get("PATH", "") + ":/usr/sbin"):
        return Finding(name="open vswitch", state="ok", detail="installed; `nacre up` starts it")
    return Finding(name="open vswitch", state="failed", detail="not installed",
                   cure="apt-get install openvswitch-switch")


def check_tun(_: Path) -> Finding:
    if Path("/dev/net/tun").exists():
        return Finding(name="tap devices", state="ok", detail="/dev/net/tun is there")
    return Finding(name="tap devices", state="failed", detail="no /dev/net/tun",
                   cure="modprobe tun; in a container pass the device through")


def check_namespaces(_: Path) -> Finding:
    if os.geteuid() != 0:
        return Finding(name="namespaces", state="warning", detail="not tried without root", cure="run with sudo")
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, timeout=10, check=False)  # noqa: S607
    if tried.returncode == 0:
        return Finding(name="namespaces", state="ok", detail="network namespaces can be made")
    return Finding(name="namespaces", state="failed", detail=tried.stderr.decode(errors="replace").strip(),
                   cure="the container or kernel forbids network namespaces: give it CAP_SYS_ADMIN")


def check_disk(data: Path) -> Finding:
    there = next(p for p in (data, *data.parents) if p.exists())
    free = shutil.disk_usage(there).free / 2**30
    if free >= 5:
        return Finding(name="disk", state="ok", detail=f"{free:.0f} GB free at {there}")
    return Finding(name="disk", state="warning" if free >= 1 else "failed", detail=f"{free:.1f} GB free at {there}",
                   cure="free some space, or use another folder with --data")


def check_folders(data: Path) -> Finding:
    """Whether another account could change what root's processes open or run: that of control above all, which faces
    users."""
    from nacre.cli.processes.folder import foreign, unsafe

    found = unsafe(data)
    inside = [said for said in found if str(data) in said]
    code = [said for path in CODE if (said := foreign(path))] if os.geteuid() == 0 else []
    if not found and not code:
        return Finding(name="root's folders", state="ok", detail=f"nobody else changes what root opens at {data}")
    cures = []
    if inside:
        cures.append("`nacre down` and `nacre up` put it right, or say what is to be done")
    if len(found) > len(inside):
        cures.append(f"when the cloud has no servers any more: `nacre down`, move {data} to {CLOUDS}/YOUR-NAME (where "
                     "it is found by itself) or elsewhere in folders of root's only, and `nacre up` there")
    if code:
        cures.append("install Nacre in a folder of root's, as /opt/nacre, and run it from there")
    return Finding(name="root's folders", state="failed" if inside else "warning", cure="; ".join(cures),
                   detail=f"{'; '.join((*found, *code))}: who gets into that account becomes root")


class Door(msgspec.Struct, frozen=True):
    """Where a process of the cloud will listen. variable: what gives it another port."""

    what: str
    host: str
    port: int
    variable: str
    udp: bool = False


def doors(settings: Settings) -> list[Door]:
    """All that `nacre up` opens with these settings, but for ports that are chosen among the free ones."""
    from nacre.cli.up import roles_of

    rpc, alone = settings.rpc_host, is_loopback(settings.rpc_host)
    if "control" not in roles_of(settings.data):
        return [Door("the host's RPC", "", settings.rpc.port or settings.port + 2, "NACRE_RPC_PORT=N")]
    found = [Door("the APIs", settings.host, settings.port, "--port N")]
    if settings.rpc_port:
        found.append(Door("control's RPC", rpc, settings.rpc_port, "NACRE_RPC_PORT=N"))
    if not alone:
        found.append(Door("the host's RPC", rpc, settings.rpc_port + 1, "NACRE_RPC_PORT=N"))
    if settings.metrics.port:
        found.append(Door("metrics", "127.0.0.1", settings.metrics.port, "NACRE_METRICS_PORT=N"))
    tunnels = settings.node.tunnel_ip if alone or not is_loopback(settings.node.tunnel_ip) else rpc
    if settings.hypervisor == "libvirt" and tunnels and not is_loopback(tunnels):
        found.append(Door("tunnels", tunnels, settings.network.vxlan_port,
                          "NACRE_NETWORK_VXLAN_PORT=N, the same on all hosts", udp=True))
    return found


def check_door(door: Door, data: Path) -> Finding:
    """Whether this cloud can have it, or has it."""
    name = f"{'UDP ' if door.udp else ''}port {door.port} ({door.what})"
    if _can_be_had(door):
        return Finding(name=name, state="ok", detail="free")
    holder = _holder(door)
    if holder is not None and any(os.fsencode(data) == os.fsencode(word) for word in holder[1][-1:]):
        return Finding(name=name, state="ok", detail=f"this cloud's: process {holder[0]}")
    who = f"process {holder[0]} ({' '.join(holder[1])[:100]}) has it" if holder is not None else (
        "something has it, perhaps the kernel" if os.geteuid() == 0 else "something has it: root sees which process")
    if door.udp and holder is None:
        return Finding(name=name, state="warning", detail="Open vSwitch has it, or another tunnel of the kernel",
                       cure=f"if the node's log says that its tunnel port cannot be added: {door.variable}")
    return Finding(name=name, state="failed", detail=who, cure=f"end that, or `nacre up` with {door.variable}")


def _can_be_had(door: Door) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in door.host else socket.AF_INET,
                       socket.SOCK_DGRAM if door.udp else socket.SOCK_STREAM) as trial:
        if not door.udp:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((door.host, door.port))
        except OSError as error:
            return error.errno not in (errno.EADDRINUSE, errno.EACCES)  # an address that is not here is another matter
    return True


def _holder(door: Door) -> tuple[int, list[str]] | None:
    """The process that has it, with its command line; None: it cannot be known."""
    import psutil

    try:
        for each in psutil.net_connections("udp" if door.udp else "tcp"):
            if each.laddr and each.laddr.port == door.port and each.pid and each.status in ("LISTEN", "NONE"):
                return each.pid, psutil.Process(each.pid).cmdline()
    except psutil.Error:
        pass
    return None


def check_external(settings: Settings) -> list[Finding]:
    """What `nacre up --external` made, if it did; as far as root sees it."""
    from nacre.cli.processes import external

    found = external.state(settings) if os.geteuid() == 0 else None
    if found is None:
        return []
    if not found["wrong"]:
        return [Finding(name="public network", state="ok", detail=external.sentence(found))]
    return [Finding(name="public network", state="warning", detail=f"{external.sentence(found)[:-1]}, but "
                    + "; ".join(found["wrong"]), cure="`nacre down` and `nacre up` make anew what is the cloud's (the "
                    f"node does so by itself while it runs, or says in {settings.data}/logs/node.log why not)")]


def examine(settings: Settings) -> list[Finding]:
    """All findings, in the order a person would mend them."""
    checks: list[Callable[[Path], Finding]] = [
        check_root, check_programs, check_virtualisation, check_ovs, check_tun, check_namespaces, check_folders,
        check_disk]
    return [*(check(settings.data) for check in checks), *check_external(settings),
            *(check_door(each, settings.data) for each in doors(settings))]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="one JSON array")
@click.option("--data", type=click.Path(path_type=Path), default=None, help="the cloud's data folder")
@click.option("--port", type=click.IntRange(1, 65535), default=None, help="the APIs' port [8774]")
def doctor(as_json: bool, data: Path | None, port: int | None) -> None:
    """Check virtualisation, permissions, Open vSwitch, folders, disk and ports; each failure names its cure."""
    from nacre.cli.client import screen
    from nacre.cli.up import running_settings

    findings = examine(running_settings(data, port=port))
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(findings)))
    else:
        console = screen()
        for f in findings:
            mark = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "failed": "[red]failed[/]"}[f.state]
            console.print(f"{mark:>20}  [bold]{f.name}[/]: {f.detail}")
            if f.state != "ok" and f.cure:
                console.print(f"{'':>10}  cure: {f.cure}")
    if any(f.state == "failed" for f in findings):
        raise SystemExit(1)
