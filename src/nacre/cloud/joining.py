"""Join tokens made, and used once: what makes a machine a host of the cloud."""

import re
from datetime import UTC, timedelta
from uuid import uuid4

import sqlalchemy as sa
import structlog

from nacre.base.clock import Clock
from nacre.base.db import Database, statements
from nacre.base.durable import changes
from nacre.base.durable.processes import Process, cloud_id, database_now, find, introduce
from nacre.base.durable.tables import join_tokens, processes
from nacre.base.errors import BadRequest, Conflict, Forbidden, NacreError
from nacre.base.rpc.keys import new_keys
from nacre.base.rpc.server import peer
from nacre.cloud.contract import Joined, JoinRequest
from nacre.cloud.introductions import Introductions
from nacre.cloud.tokens import JoinToken, payload, split
from nacre.conductor.contract import ControlAddress
from nacre.identity.keys.ring import Signer

log = structlog.get_logger()

#: Days for which it is remembered what became of a token, so that whoever shows it later hears why it does not count.
REMEMBER_DAYS = 7
_NAME = re.compile(r"[0-9A-Za-z]([0-9A-Za-z._-]{0,253}[0-9A-Za-z])?\Z")
_KEY = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}\Z")
_ANOTHER = "make another with `nacre token create`"


class NoControls(NacreError):
    """Nobody could be asked with the token."""


async def create(db: Database, clock: Clock, signer: Signer, seconds: float) -> tuple[str, JoinToken]:
    """A new token, good for so long, and what it says. Raises NoControls, Unavailable."""
    id, keys = str(uuid4()), new_keys()

    def unit(connection: sa.Connection) -> JoinToken:
        now = database_now(connection, clock)
        known = [p for p in find(connection, clock, role="control") if p.address]
        if not known:
            raise NoControls("No control of the cloud answers RPC: start one, then make the token.")
        expires = now + timedelta(seconds=seconds)
        statements.insert(connection, join_tokens, {
            "id": id, "public_key": keys.public, "created_at": now, "expires_at": expires})
        connection.execute(sa.delete(join_tokens).where(
            join_tokens.c.expires_at < now - timedelta(days=REMEMBER_DAYS)))
        changes.note(connection, now, ("token", id))
        living = [p for p in known if p.alive] or known
        return JoinToken(
            id=id, cloud=cloud_id(connection, now), expires=round(expires.replace(tzinfo=UTC).timestamp()), keys=keys,
            controls=tuple(ControlAddress(p.name, p.address, p.public_key) for p in living))

    token = await db.run(unit)
    text = payload(token)
    return f"{text}.{await signer.sign(text.encode())}", token


class JoinService:
    """Implements `contract.Joins`."""

    def __init__(self, db: Database, clock: Clock, signer: Signer, around: Introductions, vxlan_port: int):
        self._db, self._clock, self._signer, self._around = db, clock, signer, around
        self._vxlan_port = vxlan_port

    async def join(self, request: JoinRequest) -> Joined:
        token, signed, signature = split(request.token)
        if not _NAME.match(request.name):
            raise BadRequest(f"{request.name[:80]!r} is no name for a host: letters, digits, dots, dashes.",
                             field="name")
        if not _KEY.match(request.public_key):
            raise BadRequest("The host's public key is none.", field="public_key")
        sender = peer()
        if sender is None or sender.name != token.id or not await self._signer.verify(signed.encode(), signature):
            raise Forbidden(f"This token was not made by this cloud, or was changed: {_ANOTHER}.")
        cloud = await self._db.run(lambda connection: self._use(connection, token, request))
        await self._around.meet([request.name])
        log.info("a host joined", host=request.name, token=token.id)
        return Joined(cloud=cloud, controls=tuple(await self._around.controls()), vxlan_port=self._vxlan_port)

    def _use(self, connection: sa.Connection, token: JoinToken, request: JoinRequest) -> str:
        """The token is used and the host is known, or neither."""
        now = database_now(connection, self._clock)
        cloud, row = cloud_id(connection, now), statements.one(connection, join_tokens, id=token.id)
        if row is None or token.cloud != cloud:
            raise Forbidden(f"This cloud does not know the token any more: {_ANOTHER}.")
        named = statements.one(connection, processes, role="node", name=request.name)
        here = named is not None and named["public_key"] == request.public_key
        if here and row["used_key"] == request.public_key and row["used_by"] == request.name:
            return cloud  # the answer to this very request was lost
        if row["used_at"] is not None:
            raise Conflict(f"This token was used by {row['used_by']} at {row['used_at']:%Y-%m-%d %H:%M:%S} UTC, and "
                           f"counts once: {_ANOTHER}.")
        if now >= row["expires_at"]:
            raise Forbidden(f"This token expired at {row['expires_at']:%Y-%m-%d %H:%M:%S} UTC: {_ANOTHER}.")
        if named is not None and not here:
            raise Conflict(f"The cloud has a host called {request.name} already: choose another with --name, or remove "
                           f"that one with `nacre host remove {request.name}`.", field="name")
        holder = statements.one(connection, processes, public_key=request.public_key)
        if holder is not None and not here:
            raise Conflict(f"This machine's key is that of {holder['role']} {holder['name']}.", field="public_key")
        if not statements.update(connection, join_tokens, {
                "used_at": now, "used_by": request.name, "used_key": request.public_key}, id=token.id, used_at=None):
            raise Conflict(f"This token was used by another machine just now: {_ANOTHER}.")
        introduce(connection, now, Process(
            id=f"node:{request.name}", role="node", name=request.name, public_key=request.public_key,
            version=request.version, address=named["address"] if named else ""))
        return cloud
