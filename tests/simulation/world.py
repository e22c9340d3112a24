"""The whole cloud in one event loop: three control processes over one database, twenty hosts, one of another cloud."""

import asyncio
import base64
import random
from pathlib import Path
from typing import Any

import msgspec

from nacre.base.context import Context
from nacre.base.rpc.server import Peer
from nacre.cloud.control import Control, Seams, build_control
from nacre.compute.catalog.flavors import Flavor
from nacre.config import load
from nacre.network.contract import NetworkRequest
from nacre.simulation.virtual_time import LoopClock
from tests import schema
from tests.simulation import database
from tests.simulation.checker import Checker
from tests.simulation.database import Way
from tests.simulation.history import History
from tests.simulation.hosts import Host, foreign
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.network import Network, Wire

CONTROLS, HOSTS = 3, 20
WHO = Context(request_id="req-simulation", user_id="u", project_id="p", roles=("member", "reader"))
#: name -> memory, vcpus. A host has room for a few.
FLAVORS = {"small": (512, 1), "middle": (1024, 2), "large": (3072, 4)}
OPTIONS = {
    "NACRE_HYPERVISOR": "fake", "NACRE_RPC_CONTROL_NAME": "control0", "NACRE_FAKE_MEMORY_MB": "4608",
    "NACRE_FAKE_VCPUS": "4", "NACRE_FAKE_DISK_GB": "100", "NACRE_IDENTITY_ARGON2": "1,8",
    "NACRE_QUOTAS_INSTANCES": "-1", "NACRE_QUOTAS_CORES": "-1", "NACRE_QUOTAS_RAM_MB": "-1",
    "NACRE_CONDUCTOR_SILENCE": "15", "NACRE_SCHEDULER_BEST": "3",
    "NACRE_IDENTITY_SEAL_KEY": base64.urlsafe_b64encode(b"s" * 32).decode()}


class Controller:
    """One control process through all its lives."""

    def __init__(self, world: "World", name: str):
        self.world, self.name = world, name
        self.settings = msgspec.structs.replace(world.settings, data_dir=str(world.folder / name))
        self.way = Way(world.db, world.dice(name))
        self.process: Process | None = None
        self.ready = False
        self.control: Control = None  # type: ignore[assignment]
        self.scheduler: Any = None

    def start(self) -> None:
        process = self.process = Process(self.world.loop, self.name)
        wire = Wire(self.world.network, Peer(self.name, "control"), process)
        self.control = process.context().run(
            build_control, self.settings, wire, self.way, LoopClock(),
            Seams(chance=self.world.dice(f"{self.name}/scheduler"), watch=self._watch))
        self.world.history.add(self.name, "starts")

        async def life() -> None:
            while True:
                try:
                    async with self.control.running():
                        self.ready = True
                        await asyncio.Event().wait()
                except Exception as error:  # as a supervisor does
                    self.world.history.add(self.name, "cannot start", error)
                    await asyncio.sleep(1)

        process.begin(life())

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.world.network.members[self.name].leave()
        self.world.graveyard.append((self.process, self.control))
        self.process, self.ready = None, False
        self.world.history.add(self.name, "is killed")

    def _watch(self, scheduler: Any) -> Any:
        self.scheduler = self.world.checker.scheduler(self.name, scheduler)
        return self.scheduler


class World:
    """Everything there is. Construct it in a running simulated loop."""

    def __init__(self, seed: int, folder: Path):
        self.seed, self.folder = seed, folder
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        self.loop, self.history = loop, History()
        self.settings = load(folder, environ=OPTIONS)
        self.db = schema.in_memory()
        self.network = Network(self.dice("network"))
        self.checker = Checker(self)
        #: What is dead is kept until the end: see `loop.Process`.
        self.graveyard: list[Any] = []
        self.controls = [Controller(self, f"control{n}") for n in range(CONTROLS)]
        self.hosts = [Host(self, f"host{n:02}", n) for n in range(HOSTS)]
        self.stranger = Host(self, "stranger", HOSTS)
        self.image, self.networks = "", tuple[NetworkRequest, ...]()

    def dice(self, whose: str) -> random.Random:
        return random.Random(f"{self.seed}/{whose}")

    def host(self, name: str) -> Host:
        return next(host for host in (*self.hosts, self.stranger) if host.name == name)

    async def start(self) -> None:
        """All run, and every control process has heard of every host."""
        database.watch(self.db.engine)
        for controller in self.controls:
            controller.start()
        while not all(controller.ready for controller in self.controls):
            await asyncio.sleep(0.1)
        control, process = self.controls[0].control, self.controls[0].process
        assert process is not None
        await process.begin(self._furnish(control))
        self.checker.sacred = await foreign(self.stranger)
        for host in (*self.hosts, self.stranger):
            host.start()
            await asyncio.sleep(0.1)
        while any(len(c.control.registry.states) <= HOSTS for c in self.controls):
            await asyncio.sleep(0.1)

    async def _furnish(self, control: Control) -> None:
        """Flavors, an image, a network."""
        from nacre.image.data.uploads import Uploads
        from nacre.network.addresses.subnets import Subnets
        from nacre.network.l2.networks import Networks
        from nacre.network.work import Work

        for name, (memory, vcpus) in FLAVORS.items():
            await control.flavors.create(Flavor(id=name, name=name, memory_mb=memory, vcpus=vcpus, root_gb=1))

        async def data() -> Any:
            yield b"\0" * 512

        image = await control.images.create(WHO, {"name": "i", "disk_format": "raw", "container_format": "bare"})
        await Uploads(control.images).upload(WHO, image.id, data(), 512)
        networks, subnets = Networks(), Subnets()

        def step(work: Work) -> str:
            made = networks.create(work, networks.resource.parse_create({"name": "n"}, WHO))
            subnets.create(work, subnets.resource.parse_create(
                {"name": "s", "network_id": made["id"], "ip_version": 4, "cidr": "172.16.0.0/16"}, WHO))
            return str(made["id"])

        self.image = str(image.id)
        self.networks = (NetworkRequest(network_id=await control.network.write(WHO, step)),)
