"""Reads the journal of the release before this one, once: an append-only log of whole entries by server. Gone with the
next release."""

import struct
import zlib
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import msgspec

_HEAD = struct.Struct("<II")
_STAGES = {"closing": "ending"}


def allocation_of(server_id: str, epoch: int) -> str:
    """The id under which the database's migration keeps what a server has on its host since that attempt."""
    return str(uuid5(NAMESPACE_OID, f"nacre/{server_id}/{epoch}"))


def take_over(file: Path) -> list[dict[str, Any]]:
    """The living entries, in today's form. `retire` the file once they are kept."""
    if not file.is_file():
        return []
    last: dict[str, dict[str, Any]] = {}
    for entry in _records(file.read_bytes()):
        last[entry["server_id"]] = entry
    return [_today(entry) for entry in last.values() if entry["stage"] != "gone"]


def retire(file: Path) -> None:
    """Its entries are kept elsewhere: it is not read again."""
    if file.is_file():
        file.rename(file.with_name("journal.taken-over"))


def _today(entry: dict[str, Any]) -> dict[str, Any]:
    named = {"cloud": "", "allocation": allocation_of(entry["server_id"], entry["epoch"])}
    found = {**named, **entry, "stage": _STAGES.get(entry["stage"], entry["stage"])}
    for part in ("order", "spawn"):
        if found.get(part):
            found[part] = {**found[part], **named}
    if order := found.get("order"):
        order["guest"] = {**order["guest"], "admin_password": None, "user_data": None, "files": [], "metadata": {}}
    return found


def _records(data: bytes) -> list[dict[str, Any]]:
    """The sound records from the beginning."""
    found, at = [], 0
    while at + _HEAD.size <= len(data):
        length, crc = _HEAD.unpack_from(data, at)
        body = data[at + _HEAD.size:at + _HEAD.size + length]
        if len(body) < length or zlib.crc32(body) != crc:
            break
        at += _HEAD.size + length
        found.append(msgspec.msgpack.decode(body))
    return found
