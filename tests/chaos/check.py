"""Whether a cloud is whole: what its users were promised, and what the database, the hosts' journals and the
hypervisors say of each other."""

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre.node.hypervisor.fake import FakeGuest
from nacre.node.journal import Entry
from tests.chaos.fleet import Fleet
from tests.chaos.load import Known

#: A server's state -> its guest's.
POWER = {"active": "running", "stopped": "shutdown"}


def until_quiet(fleet: Fleet, seconds: float) -> list[str]:
    """Wait until nothing is under way. What still is."""
    end, left = time.monotonic() + seconds, ["?"]
    while left and time.monotonic() < end:
        time.sleep(0.2)
        with fleet.rows() as rows:
            left = [f"{what}: {list(row)}" for what, query in {
                "story": 'select kind, owner, failures, set_aside, created_at from stories',
                "server": "select id, host, vm_state, task_state from servers where not deleted and "
                          "(task_state is not null or vm_state = 'building')",
                "allocation": "select server_id, host, state, epoch from allocations where state != 'held'"}.items()
                for row in rows.execute(sa.text(query))]
    return left


def promises(fleet: Fleet, known: Iterable[Known]) -> list[str]:
    """What users were promised and is not so. ERROR is no excuse here: hosts come back, and all have room."""
    with fleet.rows() as rows:
        found = [row._mapping for row in rows.execute(sa.text(
            "select id, name, vm_state, metadata, fault from servers where not deleted"))]
    named, wrong = Counter(row["name"] for row in found), list[str]()
    by_id = {row["id"]: row for row in found}
    for each in known:
        row = by_id.get(each.id)
        if named[each.name] > 1:
            wrong.append(f"{each.name} was made {named[each.name]} times")
        if each.there is True and row is None:
            wrong.append(f"{each.name} {each.id} is lost")
        if each.there is False and (row is not None or (not each.id and named[each.name])):
            wrong.append(f"{each.name} {each.id} is there, though deleted or refused")
        if row is not None:
            now = row["metadata"] if isinstance(row["metadata"], dict) else msgspec.json.decode(row["metadata"])
            wrong += [f"{each.name} {each.id}: metadata {key} is {now.get(key)}, was confirmed as {value}"
                      for key, value in each.metadata.items() if now.get(key) not in {value, *each.late.get(key, ())}]
    return wrong + [f"{row['name']} {row['id']} is in {row['vm_state']} with fault {row['fault']}" for row in found
                    if row["vm_state"] not in POWER]


def agreement(fleet: Fleet) -> list[str]:
    """Where ledger, ports, usage, journals and hypervisors differ. Nothing is under way."""
    with fleet.rows() as rows:
        def all_of(query: str) -> list[Any]:
            return list(rows.execute(sa.text(query)).all())

        servers = {row.id: row for row in all_of(
            "select id, name, host, vm_state, allocation_id, vcpus, memory_mb from servers where not deleted")}
        ledger = {row.id: row for row in all_of("select id, server_id, host, state from allocations")}
        ports = all_of("select ports.id, device_id, ip_address, host from ports left join port_addresses on port_id = "
                       "ports.id left join port_bindings b on b.port_id = ports.id where device_owner like 'compute:%'")
        usage = all_of("select sum(instances), sum(cores), sum(ram) from project_usage")[0]
    wrong = [f"{s.name} {s.id} {s.vm_state}: its allocation is {a and tuple(a)}, its host {s.host}"
             for s in servers.values() if s.vm_state != "error"
             for a in [ledger.get(s.allocation_id)] if a is None or (a.server_id, a.host) != (s.id, s.host)]
    wrong += [f"allocation {tuple(a)} is nobody's" for a in ledger.values()
              if a.server_id not in servers or servers[a.server_id].allocation_id != a.id]
    wrong += _ports(ports, servers)
    sums = (len(servers), sum(s.vcpus for s in servers.values()), sum(s.memory_mb for s in servers.values()))
    if tuple(int(n or 0) for n in usage) != sums:
        wrong.append(f"usage is {tuple(usage)}, and servers are {sums}")
    return wrong + _hosts(fleet, servers, ledger)


def _ports(ports: list[Any], servers: dict[str, Any]) -> list[str]:
    wrong = [f"port {tuple(p)} has no server" for p in ports if p.device_id not in servers]
    wrong += [f"port {tuple(p)} is not bound where its server is: {servers[p.device_id].host}" for p in ports
              if p.device_id in servers and servers[p.device_id].vm_state != "error"
              and p.host != servers[p.device_id].host]
    each = Counter(p.device_id for p in ports)
    wrong += [f"{s.name} {s.id} {s.vm_state} has {each[s.id]} ports" for s in servers.values()
              if s.vm_state != "error" and each[s.id] != 1]
    taken = Counter(p.ip_address for p in ports)
    return wrong + [f"address {ip} is taken {n} times" for ip, n in taken.items() if n > 1]


def _hosts(fleet: Fleet, servers: dict[str, Any], ledger: dict[str, Any]) -> list[str]:
    wrong: list[str] = []
    seen: Counter[str] = Counter()
    for node in fleet.nodes:
        wanted = {a.id for a in ledger.values() if a.host == node.name}
        entries = {entry.allocation: entry for entry in _journal(node.data)}
        wrong += [f"{node.name}'s journal has {id} {e.server_id} {e.stage}, the ledger has not" for id, e in
                  entries.items() if id not in wanted]
        wrong += [f"{node.name}'s journal lacks {tuple(ledger[id])}" for id in wanted - entries.keys()]
        wrong += [f"{node.name}'s journal says {e.stage} of {e.server_id}" for e in entries.values()
                  if e.stage != "running"]
        guests = {file.stem: msgspec.json.decode(file.read_bytes(), type=FakeGuest)
                  for file in (node.data / "node" / "fake-guests").glob("*.json")}
        seen.update(guests.keys())
        for id, guest in guests.items():
            server = servers.get(id)
            if server is None or server.host != node.name:
                wrong.append(f"{node.name} has a guest {id} {guest.power} of {server and tuple(server)}")
            elif server.vm_state in POWER and POWER[server.vm_state] != guest.power:
                wrong.append(f"{server.name} {id} is {server.vm_state}, its guest {guest.power}")
        wrong += [f"{s.name} {s.id} {s.vm_state} has no guest at {node.name}" for s in servers.values()
                  if s.vm_state in POWER and s.host == node.name and s.id not in guests]
    return wrong + [f"{id} has {n} guests" for id, n in seen.items() if n > 1]


def _journal(data: Path) -> list[Entry]:
    with sqlite3.connect(f"file:{data}/node/journal.db?mode=ro", uri=True) as db:
        return [msgspec.msgpack.decode(row[0], type=Entry) for row in db.execute("select entry from allocations")]


def complaints(fleet: Fleet) -> list[str]:
    """Tracebacks in the logs, with the lines that lead to them."""
    found = []
    for member in fleet.members:
        lines = member.log.read_text(errors="replace").splitlines()
        found += [f"{member.name}: " + "\n  ".join(lines[max(0, n - 2):n + 40]) for n, line in enumerate(lines)
                  if "Traceback (most recent" in line]
    return found
