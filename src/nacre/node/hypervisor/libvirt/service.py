"""libvirt's own processes: systemd's units where systemd runs, else started here (containers)."""

import asyncio
import grp
import os
import pwd
import shutil
import stat
from pathlib import Path

import structlog

from nacre.base.errors import Unavailable
from nacre.base.locks import file_lock
from nacre.base.shell import CommandFailed, start
from nacre.node.names import RUN

log = structlog.get_logger()

SYSTEMD = Path("/run/systemd/system")
SOCKET = Path("/run/libvirt/libvirt-sock")
LOG_SOCKET = Path("/run/libvirt/virtlogd-sock")
KVM = Path("/dev/kvm")
#: The account that QEMU runs as: Debian's and Ubuntu's name, then Fedora's.
ACCOUNTS = ("libvirt-qemu", "qemu")
WAIT = 60.0
#: How long another node may take to start them.
STARTING = 90.0


async def ensure_services() -> None:
    """libvirtd and virtlogd answer. Raises Unavailable. Several nodes may ask at once: one starts them, the others
    wait."""
    open_kvm()
    if await _answers():
        return
    async with file_lock(RUN / "libvirt.lock", STARTING):
        if not await _answers():
            await _start()


async def _start() -> None:
    problems: list[str] = []
    for command in _starters():
        try:
            await start(command)
        except (CommandFailed, OSError) as error:
            problems.append(str(error))
    for _ in range(int(WAIT / 0.1)):
        if await _answers():
            log.info("libvirt started")
            return
        await asyncio.sleep(0.1)
    raise Unavailable("libvirt does not run and could not be started: " + ("; ".join(problems) or "no answer"))


def open_kvm(device: Path = KVM, group: str = "kvm") -> None:
    """QEMU's account must be able to open /dev/kvm: while it cannot, libvirt asks QEMU anew for all it can do at each
    domain, which takes a minute. What udev does on most machines is done here where nobody did."""
    try:
        now = device.stat()
        wanted = grp.getgrnam(group).gr_gid
    except (OSError, KeyError):
        return
    if os.geteuid() == 0 and now.st_gid != wanted and not stat.S_IMODE(now.st_mode) & stat.S_IRWXO:
        os.chown(device, -1, wanted)
        os.chmod(device, 0o660)


def qemu_account() -> tuple[str | None, int, int]:
    """Name, uid and gid of the account that QEMU runs as; None and our own where there is none or we are not root."""
    for name in ACCOUNTS if os.geteuid() == 0 else ():
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return name, entry.pw_uid, entry.pw_gid
    return None, os.geteuid(), os.getegid()


def _starters() -> list[list[str]]:
    if SYSTEMD.is_dir():
        return [["systemctl", "start", "virtlogd.socket", "libvirtd.socket", "libvirtd.service"]]
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    starters = []
    for name, socket in (("virtlogd", LOG_SOCKET), ("libvirtd", SOCKET)):
        if (program := shutil.which(name, path=path)) and not _runs(name):
            socket.unlink(missing_ok=True)  # a dead daemon's
            starters.append([program, "-d"])
    return starters


def _runs(name: str) -> bool:
    """A process of this name is alive; zombies are not."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
        except OSError:
            continue
        command, _, rest = text.partition("(")[2].rpartition(")")
        if command == name and rest.split()[0] not in ("Z", "X"):
            return True
    return False


def _logs() -> bool:
    """virtlogd is there, or comes when it is asked for."""
    return SYSTEMD.is_dir() or _runs("virtlogd")


async def _answers() -> bool:
    """The daemon takes a connection, and virtlogd is there for the consoles."""
    if not _logs():
        return False
    try:
        async with asyncio.timeout(3):
            _, writer = await asyncio.open_unix_connection(str(SOCKET))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
