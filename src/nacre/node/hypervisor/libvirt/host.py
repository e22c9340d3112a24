"""The connection to libvirt: blocking calls in threads of their own, events from a thread of libvirt's loop; and
what the host has."""

import asyncio
import contextlib
import functools
import json
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

import libvirt
import structlog

from nacre.base.errors import BuildFailed, NotFound, Unavailable
from nacre.node.hypervisor.driver import Capabilities

log = structlog.get_logger()
T = TypeVar("T")

#: mov ecx, 300 million; count down; write 0x31 to port 0xf4 (isa-debug-exit ends QEMU with code 0x63).
TRIAL = (b"\x66\xb9" + (300_000_000).to_bytes(4, "little") + b"\x66\x49\x75\xfc\xb0\x31\xba\xf4\x00\xee\xf4\xeb\xfd")
TRIAL_CODE, TRIAL_SECONDS = 99, 8
THREADS = 8


class Host:
    """One libvirt connection, opened at need and again after libvirtd was restarted."""

    def __init__(self, uri: str):
        self._uri = uri
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="libvirt")
        self._connection: Any = None
        self._opening = threading.Lock()
        self._changed: Callable[[str], None] | None = None

    def watch(self, changed: Callable[[str], None]) -> None:
        """`changed(uuid)` is called, from another thread, whenever a domain starts, stops or pauses. Before `call`."""
        _start_events()
        self._changed = changed

    async def call(self, work: Callable[[Any], T]) -> T:
        """`work(connection)` in a thread. A caller that is cancelled waits for its end first: what it was doing must
        not go on behind the back of who takes it back. Raises NotFound, BuildFailed, Unavailable."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, self._do, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await asyncio.shield(future)
            raise

    async def close(self) -> None:
        """Ends the connection; guests stay."""
        self._changed = None
        if self._connection is not None:
            with contextlib.suppress(Exception):
                await asyncio.get_running_loop().run_in_executor(self._threads, self._connection.close)
        self._threads.shutdown(wait=False)

    def _do(self, work: Callable[[Any], T]) -> T:
        try:
            return work(self._open())
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                raise NotFound("The domain is not on this host.") from error
            if error.get_error_domain() == libvirt.VIR_FROM_RPC:
                raise Unavailable(f"libvirt does not answer: {error}") from error
            raise BuildFailed(f"libvirt: {error}") from error

    def _open(self) -> Any:
        with self._opening:
            if self._connection is None or not self._connection.isAlive():
                connection = libvirt.open(self._uri)
                if self._changed is not None:
                    connection.setKeepAlive(5, 3)
                    connection.domainEventRegisterAny(
                        None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle, None)
                self._connection = connection
            return self._connection

    def _lifecycle(self, _connection: Any, domain: Any, _event: int, _detail: int, _opaque: Any) -> None:
        if self._changed is not None:
            self._changed(domain.UUIDString())


@functools.cache
def _start_events() -> None:
    """libvirt's event loop, one thread a process: it is global to the library, unlike ours."""
    libvirt.virEventRegisterDefaultImpl()
    libvirt.registerErrorHandler(lambda _context, _error: None, None)

    def work() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=work, name="libvirt-events", daemon=True).start()


def capabilities(connection: Any, virt_type: str, folder: Path) -> Capabilities:
    """What the host has in all; the disk is the one that `folder` is on."""
    info = connection.getInfo()
    model, vendor, features = processor(connection)
    facts = {"arch": info[0], "model": model or info[0], "vendor": vendor or platform.processor() or "unknown",
             "topology": {"cells": info[4], "sockets": info[5], "cores": info[6], "threads": info[7]},
             # An emulated guest's processor is not the host's: nothing is promised of it.
             "features": features if virt_type == "kvm" else []}
    return Capabilities(
        hypervisor_type="QEMU" if virt_type == "qemu" else "KVM", hypervisor_version=connection.getVersion(),
        vcpus=info[2], memory_mb=info[1], disk_gb=shutil.disk_usage(folder).total >> 30, architecture=info[0],
        cpu_info=json.dumps(facts))


def processor(connection: Any) -> tuple[str, str, list[str]]:
    """The host's processor by libvirt's names: model, vendor, every feature (those of its model too)."""
    try:
        found = ElementTree.fromstring(connection.getCapabilities()).find("host/cpu")  # noqa: S314 - libvirt's own
        if found is None:
            return "", "", []
        whole = ElementTree.fromstring(connection.baselineCPU(  # noqa: S314 - libvirt's own
            [ElementTree.tostring(found, encoding="unicode")], libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES))
    except (libvirt.libvirtError, ElementTree.ParseError) as error:
        log.warning("the processor's features are not known", why=str(error))
        return "", "", []
    names = [str(feature.get("name")) for feature in whole.findall("feature") if feature.get("policy") != "disable"]
    return found.findtext("model") or "", found.findtext("vendor") or "", sorted(names)


@functools.cache
def kvm_works() -> bool:
    """Whether KVM really runs a guest: one is tried, since a /dev/kvm that opens may still hang every guest. Blocks for
    some tenths of a second, up to 8 s where it hangs; the answer is kept for the life of the process."""
    program = shutil.which("qemu-system-x86_64", path=os.environ.get("PATH", "") + ":/usr/libexec")
    if program is None or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    with tempfile.NamedTemporaryFile(suffix=".img") as disk:
        disk.write(TRIAL.ljust(510, b"\0") + b"\x55\xaa")
        disk.flush()
        try:
            tried = subprocess.run(
                [program, "-machine", "pc", "-accel", "kvm", "-cpu", "host", "-m", "32", "-nodefaults", "-display",
                 "none", "-no-reboot", "-drive", f"file={disk.name},format=raw,if=ide",
                 "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"],
                capture_output=True, timeout=TRIAL_SECONDS, check=False)
        except (subprocess.TimeoutExpired, OSError):
            return False
    return tried.returncode == TRIAL_CODE
