"""Process 1 of a simulated host: makes the host's own file systems, links and Open vSwitch, says "ready", then only
collects the dead. When it ends, everything in the host ends with it.

Started as root, in new net, mount, uts and pid namespaces that have the links eth0 (management) and eth1 (underlay):
NAME, MANAGEMENT address, UNDERLAY address (both with prefix length), DISK: a folder for what outlives a power cut.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

#: Folders that each host has for itself, on its disk; beside them /run, which no boot finds as it was.
OWN = ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt",
       "/etc/openvswitch", "/var/lib/openvswitch", "/var/log/openvswitch")
#: Another host's guests are in the same control groups, so libvirt keeps out of them here; and guests' disks are
#: root's, as they may lie in folders that two hosts share when a guest moves.
QEMU = """
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = [ ]
cgroup_controllers = [ ]
migration_host = "{address}"
"""
DATABASE, SCHEMA = "/etc/openvswitch/conf.db", "/usr/share/openvswitch/vswitch.ovsschema"
RUN = "/run/openvswitch"
DAEMON = "--pidfile --detach --log-file -vconsole:off"
UNDERLAY = "br-under"


def sh(line: str) -> None:
    done = subprocess.run(line.split(), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{line}: {done.stderr or done.stdout}")


def file_systems(address: str, disk: Path) -> None:
    """Nothing that daemons write is the machine's, or another host's."""
    sh("mount --make-rprivate /")
    sh("mount -t sysfs sysfs /sys")  # the links in there are this namespace's
    sh("mount -t tmpfs -o mode=755 lab /run")
    for folder in ("/run/lock", "/run/netns", RUN):
        Path(folder).mkdir()
    first = not disk.exists()
    for folder in filter(os.path.isdir, OWN):
        own = disk / folder.strip("/").replace("/", "-")
        own.mkdir(parents=True, exist_ok=True)
        if first and folder == "/etc/libvirt":
            configure(own, address)
        sh(f"mount --bind {own} {folder}")


def configure(own: Path, address: str) -> None:
    """Of libvirt: the machine's settings, but for ours."""
    for file in Path("/etc/libvirt").glob("*.conf"):
        (own / file.name).write_bytes(file.read_bytes())
    (own / "qemu.conf").write_text(QEMU.format(address=address))
    (own / "libvirtd.conf").write_text(f'host_uuid = "{uuid4()}"\nauth_unix_rw = "none"\n')


def links(management: str, underlay: str) -> None:
    """Two cards: eth0 with the management address, and eth1 in the bridge that has the tunnels' address, as Open
    vSwitch's userspace datapath wants it."""
    sh("ip link set lo up")
    sh(f"ip address add {management} dev eth0")
    sh("ip link set eth0 up")
    sh("ethtool -K eth1 tx off")  # who reads frames from this link's other end wants their checksums
    sh("ip link set eth1 up")
    if not Path(DATABASE).exists():
        sh(f"ovsdb-tool create {DATABASE} {SCHEMA}")
    sh(f"ovsdb-server {DATABASE} --remote=punix:{RUN}/db.sock {DAEMON}")
    sh("ovs-vsctl --no-wait init")
    sh(f"ovs-vsctl --no-wait set Open_vSwitch . external_ids:system-id={uuid4()}")
    sh(f"ovs-vswitchd unix:{RUN}/db.sock {DAEMON}")
    sh(f"ovs-vsctl --may-exist add-br {UNDERLAY} -- set bridge {UNDERLAY} datapath_type=netdev "
       f"-- --may-exist add-port {UNDERLAY} eth1")
    sh(f"ip address add {underlay} dev {UNDERLAY}")
    sh(f"ip link set {UNDERLAY} up")


def await_links() -> None:
    while not {"eth0", "eth1"} <= {name for _, name in socket.if_nameindex()}:
        time.sleep(0.01)


def main(name: str, management: str, underlay: str, disk: str) -> None:
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    os.umask(0o022)
    if not shutil.which("ovs-vswitchd"):
        sys.exit("Open vSwitch is not installed")
    socket.sethostname(name)
    file_systems(management.partition("/")[0], Path(disk))
    await_links()
    links(management, underlay)
    print("ready", flush=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        signal.sigtimedwait({signal.SIGCHLD}, 1)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            continue


if __name__ == "__main__":
    main(*sys.argv[1:])
