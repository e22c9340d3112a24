"""Whose the integration bridge is: one cloud's at a time, as each makes the bridge's flows exactly its own.

The bridge is marked with its cloud's data folder (external_ids:nacre-data), which lasts as long as the bridge does.
That the cloud lives is proved by a lock that the kernel lets go with its node process, on a file that names the folder;
a record lock, so a forked child does not keep it.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import struct
from pathlib import Path
from typing import Any

import msgspec

from nacre.base.errors import Conflict
from nacre.base.shell import CommandFailed, run

LOCKS = Path("/run/nacre")
MARK = "nacre-data"
#: How long the node process before this one may take to be gone (seconds).
PATIENCE = 5.0
_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, pid


class Holder(msgspec.Struct, frozen=True):
    """A node process that has the bridge now."""

    folder: str
    pid: int


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """A bridge as it was found. mark: the data folder it is marked with. marked_lives: that folder is there. guests:
    how many ports of servers whose interfaces exist. foreign: ports that Nacre does not make."""

    holder: Holder | None = None
    exists: bool = False
    mark: str | None = None
    marked_lives: bool = False
    guests: int = 0
    foreign: tuple[str, ...] = ()


def refusal(bridge: str, folder: str, facts: Facts) -> str | None:
    """Why the cloud in `folder` may not have the bridge, and what to do; None: it may."""
    ours = f"If what is on it is this cloud's, say so: `ovs-vsctl br-set-external-id {bridge} {MARK} {folder}`."
    if facts.holder is not None and facts.holder.folder != folder:
        other = facts.holder.folder
        return (f"The cloud in {other} is up on this machine (process {facts.holder.pid}) and has the bridge {bridge}, "
                f"which two clouds with guests cannot share. Stop it first: `nacre down --data {other}`; or give this "
                "one no guests: `--hypervisor fake`.")
    if facts.mark == folder or not facts.exists:
        return None
    if facts.mark is not None:
        if facts.marked_lives and facts.guests:
            return (f"Servers of the cloud in {facts.mark} run on the bridge {bridge} ({facts.guests} with a port): "
                    f"they would lose their network. Delete or stop those servers (`nacre up --data {facts.mark}`), "
                    f"then `nacre down --data {facts.mark}`. {ours}")
        return None
    if facts.guests or facts.foreign:
        seen = ", ".join(facts.foreign[:3]) or f"ports of servers: {facts.guests}"
        return (f"The bridge {bridge} is there and not Nacre's ({seen}): perhaps Neutron's or OVN's, whose flows "
                f"would be lost. Use another machine, or remove it if nobody needs it: `ovs-vsctl del-br {bridge}`. "
                f"{ours}")
    return None


class Ownership:
    """One bridge of the Open vSwitch at `rundir`, for the cloud in `folder`."""

    def __init__(self, bridge: str, folder: Path, rundir: Path, locks: Path = LOCKS):
        self.bridge, self.folder, self._rundir = bridge, str(folder), rundir
        self._file = locks / f"{str(rundir).strip('/').replace('/', '-')}-{bridge}.lock"
        self._held: int | None = None

    async def take(self) -> None:
        """The bridge is ours until `release`, or this process's end. Raises Conflict."""
        if self._held is not None:
            return
        for _ in range(int(PATIENCE / 0.1)):
            if self._lock():
                break
            if (holder := self.holder()) is not None and holder.folder != self.folder:
                raise Conflict(refusal(self.bridge, self.folder, Facts(holder=holder)) or "")
            await asyncio.sleep(0.1)
        else:
            raise Conflict(f"Another node process of the cloud in {self.folder} has the bridge {self.bridge}.")
        try:
            if why := refusal(self.bridge, self.folder, await self.facts()):
                raise Conflict(why)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Others may have it. The mark stays: servers may still run."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def holder(self) -> Holder | None:
        """The process, other than this one, that has the bridge."""
        with contextlib.suppress(OSError), self._file.open("rb") as file:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, *_, pid = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
            if kind != fcntl.F_UNLCK:
                return Holder(file.read().decode(errors="replace"), pid)
        return None

    async def facts(self) -> Facts:
        """As it is now. No Open vSwitch that answers: there is no bridge."""
        holder = None if self._held is not None else self.holder()
        try:
            bridge = await self._rows("external_ids", "Bridge", self.bridge)
            if not bridge:
                return Facts(holder=holder)
            names = (await self._vsctl("list-ifaces", self.bridge)).decode().split()
            rows = await self._rows("name,type,ofport,external_ids", "Interface", *names) if names else []
        except (CommandFailed, OSError):
            return Facts(holder=holder)
        return _seen(holder, bridge[0]["external_ids"].get(MARK), rows)

    def _lock(self) -> bool:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        fd = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        os.ftruncate(fd, 0)
        os.pwrite(fd, self.folder.encode(), 0)
        self._held = fd
        return True

    async def _rows(self, columns: str, table: str, *names: str) -> list[dict[str, Any]]:
        """The rows of these names, as far as they are there."""
        told = json.loads(await self._vsctl(
            "--format=json", f"--columns={columns}", "--if-exists", "list", table, *names))
        return [{name: dict(cell[1]) if isinstance(cell, list) and cell[0] == "map" else cell
                 for name, cell in zip(told["headings"], row, strict=True)} for row in told["data"]]

    async def _vsctl(self, *args: str) -> bytes:
        return await run(["ovs-vsctl", f"--db=unix:{self._rundir}/db.sock", "--timeout=5", "--no-wait", *args])


def _seen(holder: Holder | None, mark: str | None, interfaces: list[dict[str, Any]]) -> Facts:
    guests = [r for r in interfaces if "iface-id" in r["external_ids"] and _number(r["ofport"]) > 0]
    return Facts(holder=holder, exists=True, mark=mark, marked_lives=bool(mark and os.path.exists(mark)),
                 guests=len(guests), foreign=tuple(sorted(r["name"] for r in interfaces if not _usual(r))))


def _number(cell: Any) -> int:
    """An optional integer of Open vSwitch's: a number, or an empty set."""
    return cell if isinstance(cell, int) else 0


def _usual(interface: dict[str, Any]) -> bool:
    """Whether Nacre makes such ports: servers', networks', the tunnel, patches to provider networks."""
    name, ids = interface["name"], interface["external_ids"]
    return "iface-id" in ids or "nacre-network" in ids or name.startswith("vx-") or (
        interface["type"] == "patch" and name.startswith("int-"))
