"""Open vSwitch's own processes: systemd's units where systemd runs, else started here (containers)."""

import asyncio
from pathlib import Path

import structlog

from nacre.base.errors import Unavailable
from nacre.base.locks import file_lock
from nacre.base.shell import CommandFailed, run, start
from nacre.node.names import RUN

log = structlog.get_logger()

SYSTEMD = Path("/run/systemd/system")
OVS_CTL = "/usr/share/openvswitch/scripts/ovs-ctl"
UNITS = ("openvswitch-switch", "openvswitch")  # Debian's name, then Fedora's
#: How long another node may take to start it (seconds).
STARTING = 90.0


async def ensure_services(rundir: Path = Path("/run/openvswitch")) -> bool:
    """Open vSwitch answers at `rundir`/db.sock. True if this call started it. Raises Unavailable. Several nodes may ask
    at once: one starts it, the others wait."""
    if await _answers(rundir):
        return False
    async with file_lock(RUN / "openvswitch.lock", STARTING):
        return False if await _answers(rundir) else await _start(rundir)


async def _start(rundir: Path) -> bool:
    problems = []
    for command in _starters():
        try:
            await start(command)
        except (CommandFailed, OSError) as error:
            problems.append(str(error))
            continue
        if await _wait(rundir):
            log.info("Open vSwitch started", by=command[0])
            return True
    raise Unavailable("Open vSwitch does not run and could not be started: " + ("; ".join(problems) or "no answer"))


def alive(pid: int) -> bool:
    """Does this process run? A zombie does not (and a plain kill(pid, 0) would say it does)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def _starters() -> list[list[str]]:
    if SYSTEMD.is_dir():
        return [["systemctl", "start", unit] for unit in UNITS]
    return [[OVS_CTL, "start", "--no-record-hostname", "--system-id=random"]]


async def _answers(rundir: Path) -> bool:
    """The database answers and vswitchd is alive behind it."""
    try:
        await run(["ovs-vsctl", f"--db=unix:{rundir}/db.sock", "--timeout=3", "--no-wait", "show"])
        pid = int((rundir / "ovs-vswitchd.pid").read_text())
        return alive(pid)
    except (CommandFailed, OSError, ValueError):
        return False


async def _wait(rundir: Path) -> bool:
    for _ in range(50):
        if await _answers(rundir):
            return True
        await asyncio.sleep(0.1)
    return False
