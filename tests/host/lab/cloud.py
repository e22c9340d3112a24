"""The cloud of a lab: one control process on the machine, which hosts reach by its address, and hosts that joined."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nacre.cli.client import Client
from nacre.cli.supervisor import free_port
from nacre.node.names import Names
from tests.host.cloud_lab import ROOT, Tenant
from tests.host.lab.hosts import DIES_WITH_US, SECONDS, Fabric, Host, end, until

#: Guests are emulated and frames are carried in user space, as everywhere that has no more to offer: a lab is the same
#: on each machine, and starts at once.
OPTIONS = {"NACRE_NODE_VIRT_TYPE": "qemu", "NACRE_NODE_DATAPATH": "netdev"}


class HostsLab(Tenant):
    """A cloud of several hosts, and what a test does with it."""

    def __init__(self, folder: Path, fabric: Fabric, environ: Mapping[str, str]):
        self.fabric, self.hosts = fabric, dict[str, Host]()
        self.data, self._environ = folder / "control", {**OPTIONS, **environ}
        self.port, self._rpc_port = free_port(), free_port()
        self._control: subprocess.Popen[bytes] | None = None
        self.data.mkdir()

    def up(self) -> None:
        """All that is said of a lab is true when this returns."""
        self.start_control()
        until("the control process answers", lambda: self._alive() and (self.data / "clouds.yaml").exists())
        self.admin = Client(self.data, "nacre")
        self.wait(lambda: self.admin.get("compute", "/flavors"), "the APIs", SECONDS)
        with ThreadPoolExecutor() as threads:
            for joined in [threads.submit(self.join, host) for host in self.hosts.values()]:
                joined.result()
        self.wait(lambda: self.hosts_up() == set(self.hosts), "all hosts are up", SECONDS)
        super().__init__(self.data)
        member = json.loads((next(iter(self.hosts.values())).folder / "node" / "joined.json").read_bytes())
        self.names = Names(member["cloud"])

    # --- processes --------------------------------------------------------------------------------------------

    def start_control(self) -> None:
        command = ["control", "--host", self.fabric.address, "--port", str(self.port)]
        with (self.data / "control.log").open("ab") as log:
            self._control = subprocess.Popen(
                [*DIES_WITH_US, *self._command(*command)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                umask=0o077, env=self._environment(NACRE_RPC_PORT=str(self._rpc_port), NACRE_DRAIN="0"))

    def join(self, host: Host) -> None:
        """The machine becomes a host of the cloud, as any would."""
        made = json.loads(self._nacre("token", "create", "--json"))
        host.nacre("join", made["token"], environ=self._options(host))

    def restart(self, host: Host) -> None:
        """A host that joined before is started again."""
        host.nacre("up", "-d", environ=self._options(host))

    def _options(self, host: Host) -> dict[str, str]:
        return {**self._environ, "NACRE_NODE_TUNNEL_IP": host.underlay}

    def kill_control(self) -> None:
        if self._control is not None:
            end(self._control)

    def _alive(self) -> bool:
        """Raises AssertionError with its last words if the control process ended."""
        assert self._control is not None
        assert self._control.poll() is None, (self.data / "control.log").read_text()[-3000:]
        return True

    def _nacre(self, *args: str) -> str:
        done = subprocess.run(self._command(*args), capture_output=True, text=True, timeout=90, check=False,
                              env=self._environment(), umask=0o077)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def _command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "nacre.cli.main", *args, "--data", str(self.data)]

    def _environment(self, **more: str) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("NACRE_")}
        return {**clean, "PYTHONPATH": str(ROOT / "src"), **self._environ, **more}

    # --- what tests ask ---------------------------------------------------------------------------------------

    def wait(self, what: Callable[[], Any], name: str, seconds: float) -> Any:
        try:
            return super().wait(what, name, seconds)
        except AssertionError:
            nodes = [host.folder / "logs" / "node.log" for host in self.hosts.values()]
            for log in (self.data / "control.log", *nodes):
                if log.exists():
                    print(f"--- the end of {log}", *log.read_text(errors="replace").splitlines()[-25:], sep="\n")
            raise

    def hosts_up(self) -> set[str]:
        listed = self.admin.get("compute", "/os-services", params={"binary": "nova-compute"})["services"]
        return {service["host"] for service in listed if service["state"] == "up"}

    def host_of(self, server: str) -> Host:
        return self.hosts[self.admin.get("compute", f"/servers/{server}")["server"]["OS-EXT-SRV-ATTR:host"]]

    def ssh(self, server: str, command: str) -> str:
        """What a command prints in a guest; it is reached from its network's namespace on its host."""
        port = self.ports(server)[0]
        return self.host_of(server).run(
            "ip", "netns", "exec", self.names.namespace(port["network_id"]), "ssh", "-oStrictHostKeyChecking=no",
            "-oUserKnownHostsFile=/dev/null", "-oLogLevel=ERROR", "-oConnectTimeout=10", "-oBatchMode=yes",
            "-i", str(self.key), f"root@{port['fixed_ips'][0]['ip_address']}", command).strip()

    def left_of(self, host: Host, server: str, port: dict[str, Any]) -> dict[str, object]:
        """What a host still has of a server that is gone."""
        mac = port["mac_address"]
        found: dict[str, object] = {
            "domain": server in host.domains(),
            "tap": self.names.tap(port["id"]) in host.run("ip", "-o", "link"),
            "bridge port": [n for n, ids in host.interfaces().items() if port["id"] in ids.values()],
            "flows": [flow for flow in host.flows(self.names.bridge) if mac in flow],
            "disk": [str(path) for path in host.folder.rglob(f"{server}*")],
            "lease": [line for line in host.run("find", str(self.names.run), "-name", "*lease*", "-exec", "cat", "{}",
                                                "+").splitlines() if mac in line]}
        return {name: what for name, what in found.items() if what}
