"""`nacre doctor`: what this machine has, what is missing, and the cure for each."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import msgspec


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


def check_port(port: int | None) -> Callable[[Path], Finding]:
    """port: that of the folder's cloud unless it is given."""
    def check(data: Path) -> Finding:
        from nacre.cli.up import running_settings, supervisor_pid

        own = running_settings(data).port
        return look(data, port or own, supervisor_pid(data) is not None and port in (None, own))

    def look(data: Path, port: int, ours: bool) -> Finding:
        with socket.socket() as s:
            s.settimeout(1)
            taken = s.connect_ex(("127.0.0.1", port)) == 0
        if ours and taken:
            return Finding(name=f"port {port}", state="ok", detail="the cloud that runs here answers there")
        if ours:
            return Finding(name=f"port {port}", state="warning", detail="the cloud runs, and does not answer there yet",
                           cure=f"wait, then `nacre status`; its words are in {data}/logs")
        if not taken:
            return Finding(name=f"port {port}", state="ok", detail="free")
        return Finding(name=f"port {port}", state="warning", detail="another program listens there",
                       cure="choose another with `nacre up --port N`")
    return check


def examine(data: Path, port: int | None) -> list[Finding]:
    """All findings, in the order a person would mend them."""
    checks: list[Callable[[Path], Finding]] = [
        check_root, check_programs, check_virtualisation, check_ovs, check_tun, check_namespaces, check_disk,
        check_port(port)]
    return [check(data) for check in checks]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="one JSON array")
@click.option("--data", type=click.Path(path_type=Path), default=None, help="the cloud's data folder")
@click.option("--port", type=click.IntRange(1, 65535), default=None, help="the APIs' port [the cloud's, or 8774]")
def doctor(as_json: bool, data: Path | None, port: int | None) -> None:
    """Check virtualisation, permissions, Open vSwitch, disk and ports; each failure names its cure."""
    from nacre.config import data_folder

    findings = examine(data_folder(data), port)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(findings)))
    else:
        from nacre.cli.client import screen

        console = screen()
        for f in findings:
            mark = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "failed": "[red]failed[/]"}[f.state]
            console.print(f"{mark:>20}  [bold]{f.name}[/]: {f.detail}")
            if f.state != "ok" and f.cure:
                console.print(f"{'':>10}  cure: {f.cure}")
    if any(f.state == "failed" for f in findings):
        raise SystemExit(1)
