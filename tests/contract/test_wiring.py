"""What every network side of a node does, simulated and real alike (the real one where the machine allows it)."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from tests.host.wiring_lab import NetworkStub, able, allow, group, lab, network, port

from nacre.base.clock import VirtualClock, settle
from nacre.base.errors import BuildFailed
from nacre.node.ovs.fake import FakeWiring, WiringFaults

NET = network()
PORTS = [port(11, NET), port(12, NET)]
OPEN = group("open", allow())
FRIENDS = group("open", allow(remote_group="friends"))


class Simulated:
    def __init__(self, stub):
        self.wiring = FakeWiring("lab", stub)

    async def plug(self, facts):
        pass


class Real:
    def __init__(self, place):
        self.wiring, self.place = place.agent, place

    async def plug(self, facts):
        await self.place.guest(facts)


@asynccontextmanager
async def simulated(stub):
    yield Simulated(stub)


@asynccontextmanager
async def real(stub):
    async with lab(stub) as place:
        yield Real(place)


REAL = pytest.param(real, marks=[pytest.mark.host, pytest.mark.skipif(not able(), reason="needs root and programs")])


@pytest.mark.parametrize("side", [simulated, REAL])
async def test_wire_unwire_rewire(side):
    stub = NetworkStub([NET], PORTS, [OPEN])
    async with side(stub) as subject:
        wiring = subject.wiring
        await wiring.wire([], [])
        assert stub.said == []
        for facts in PORTS:
            await subject.plug(facts)
        await asyncio.gather(wiring.wire(PORTS[:1], [NET]), wiring.wire(PORTS[1:], [NET]))
        assert sorted(p for ports, up in stub.said for p in ports if up) == [p.id for p in PORTS]
        await wiring.wire(PORTS, [NET])  # a repeated call changes nothing
        assert len([p for ports, _ in stub.said for p in ports]) == 2
        await wiring.rewire(())
        await wiring.rewire([PORTS[0].id])
        await wiring.unwire([PORTS[0].id])
        await wiring.unwire([PORTS[0].id, "never-seen"])
        report = wiring.report()
        assert report.host == "lab" and "Open vSwitch agent" in report.agents


@pytest.mark.parametrize("side", [simulated, REAL])
async def test_a_port_that_is_not_ours_fails_alone(side):
    stub = NetworkStub([NET], PORTS[:1], [OPEN])
    async with side(stub) as subject:
        for facts in PORTS:
            await subject.plug(facts)
        results = await asyncio.gather(subject.wiring.wire(PORTS[1:], [NET]), subject.wiring.wire(PORTS[:1], [NET]),
                                       return_exceptions=True)
        assert isinstance(results[0], BuildFailed) and results[1] is None


@pytest.mark.parametrize("side", [simulated, REAL])
@pytest.mark.parametrize("deaf", ["", "wiring", "differences", "wired"])
async def test_a_build_waits_while_no_control_process_can_be_asked(side, deaf):
    """To take the attempt back would end it for good: whoever goes on with the build asks this very host again."""
    stub = NetworkStub([NET], PORTS[:1], [OPEN])
    async with side(stub) as subject:
        stub.deaf = deaf
        for facts in PORTS:
            await subject.plug(facts)
        await subject.wiring.wire(PORTS[:1], [NET])
        stub.ports = PORTS
        if deaf == "differences":
            stub.groups = [FRIENDS]  # a rule names a group whose members are not known here
        stub.away = 2
        given_up, waits = (asyncio.create_task(subject.wiring.wire(PORTS[1:], [NET])) for _ in range(2))
        while stub.away:
            assert not waits.done()
            await asyncio.sleep(0.01)
            given_up.cancel()
        await waits
        assert (tuple(p.id for p in PORTS[1:]), True) in stub.said


async def test_faults_of_the_simulated_side():
    stub, clock = NetworkStub([NET], PORTS, [OPEN]), VirtualClock()
    wiring = FakeWiring("lab", stub, faults=WiringFaults(delay=5, fail=1, refuse={PORTS[1].id}), clock=clock)
    first = asyncio.create_task(wiring.wire(PORTS[:1], [NET]))
    await settle()
    await clock.advance(4.9)
    assert not first.done()
    await clock.advance(0.2)
    with pytest.raises(BuildFailed):
        await first
    second, refused = (asyncio.create_task(wiring.wire(p, [NET])) for p in (PORTS[:1], PORTS[1:]))
    await settle()
    await clock.advance(5)
    await second
    with pytest.raises(BuildFailed):
        await refused
    assert wiring.up == {PORTS[0].id}
