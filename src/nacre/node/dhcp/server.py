"""One dnsmasq for each network that has ports here. It outlives the node and is adopted when the node comes back."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import structlog

from nacre.base.errors import NacreError
from nacre.base.shell import run
from nacre.network.contract import NetworkFacts, PortFacts
from nacre.node.dhcp.config import DhcpSettings, dnsmasq_conf, host_files
from nacre.node.ovs.service import alive

log = structlog.get_logger()


class Dhcp:
    """Starts, changes and stops the DHCP servers of a host."""

    def __init__(self, settings: DhcpSettings):
        self.settings = settings

    async def serve(self, network: NetworkFacts, ports: Sequence[PortFacts], namespace: str) -> None:
        """DHCP answers these ports with what they should get, from inside the namespace. Idempotent.

        New hosts are seen live. Anything else means a restart: a HUP can crash dnsmasq 2.90, and what was deleted
        is only forgotten so.
        """
        home = self._home(network.id)
        files = host_files(network, ports, self.settings)
        stale = await asyncio.to_thread(_write, home, files, dnsmasq_conf(network, self.settings))
        running = await asyncio.to_thread(pid_of, home)
        if running and stale:
            await _end(running)
            running = None
        if not running:
            await run(["ip", "netns", "exec", namespace, "dnsmasq", f"--conf-file={home}/conf"])
            log.info("DHCP serves", network=network.id, namespace=namespace)

    async def stop(self, network_id: str) -> None:
        """No DHCP for this network here, and no files of it."""
        await _remove(self._home(network_id))

    async def retire(self, directory: Path) -> None:
        """No server whose files lie in this directory (where an earlier release kept them) runs, and it is gone."""
        for network_id in await asyncio.to_thread(_children, directory):
            await _remove(directory / network_id)
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    async def running(self, network_id: str) -> bool:
        """Does a server of this network live?"""
        return await asyncio.to_thread(pid_of, self._home(network_id)) is not None

    async def known(self) -> list[str]:
        """The networks that have files here, served or not."""
        return await asyncio.to_thread(_children, self.settings.directory)

    def _home(self, network_id: str) -> Path:
        if not network_id or "/" in network_id or network_id.startswith("."):
            raise NacreError(f"{network_id!r} is no network's id")
        return self.settings.directory / network_id


def pid_of(home: Path) -> int | None:
    """The process that serves this directory; None if there is none (a zombie is none, nor is a stranger's pid)."""
    try:
        pid = int((home / "pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()  # empty for a zombie
    except (OSError, ValueError):
        return None
    return pid if f"--conf-file={home}/conf".encode() in command.split(b"\0") else None


def _children(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.is_dir()) if directory.is_dir() else []


async def _remove(home: Path) -> None:
    if running := await asyncio.to_thread(pid_of, home):
        await _end(running)
    await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)


def _write(home: Path, files: dict[str, str], conf: str) -> bool:
    """Brings the files to this state. True if a running server must be restarted to see it."""
    for directory in (home, home / "hosts", home / "opts"):
        directory.mkdir(parents=True, exist_ok=True)
    for directory in (home.parent, home, home / "hosts", home / "opts"):
        directory.chmod(0o755)  # dnsmasq gives up root
    stale = _put(home / "conf", conf)
    for relative, text in files.items():
        fresh = not (home / relative).exists()
        stale = (_put(home / relative, text) and not fresh) or stale
    for kind in ("hosts", "opts"):
        for path in (home / kind).iterdir():
            if f"{kind}/{path.name}" not in files:
                path.unlink()
                stale = True
    return stale


def _put(path: Path, text: str) -> bool:
    if path.exists() and path.read_text() == text:
        return False
    draft = path.with_name(f".{path.name}.draft")  # dnsmasq ignores names with a dot in front
    draft.write_text(text)
    draft.chmod(0o644)
    draft.rename(path)
    return True


async def _end(pid: int) -> None:
    """The process is gone, and its sockets with it, when this returns."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sign)
        for _ in range(200):
            if not await asyncio.to_thread(alive, pid):
                return
            await asyncio.sleep(0.005)
    log.error("a DHCP server does not end", pid=pid)
