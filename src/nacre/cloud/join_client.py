"""The machine's side of joining a cloud: it asks one control after the other until one decides."""

import asyncio
import contextlib

from nacre.base.errors import Forbidden, Unavailable
from nacre.base.rpc.link import UnknownKey
from nacre.base.rpc.server import Peer
from nacre.base.rpc.stub import stub
from nacre.base.rpc.zmq import ZmqTransport
from nacre.cloud.contract import TARGET, Joined, JoinRequest, Joins
from nacre.cloud.tokens import split

#: Seconds that one control has for its answer, and until all are asked once more: they learn of a token in less.
PATIENCE, PAUSE = 15.0, 1.0


async def join(request: JoinRequest) -> Joined:
    """What the cloud says. Raises as `Joins.join`, and Unavailable if no control answers."""
    token, _, _ = split(request.token)
    transport, unknown = ZmqTransport(Peer(token.id, "join"), token.keys), False
    try:
        for control in token.controls:
            transport.directory.route("control", control.id, control.address, control.public_key)
        for last in (False, True):
            for control in token.controls:
                ways = transport.client(TARGET).prepare(server=control.id, timeout=PATIENCE)
                try:
                    return await stub(Joins, ways).join(request)
                except UnknownKey:
                    unknown = True
                except Unavailable:
                    continue
            if not last:
                await asyncio.sleep(PAUSE)
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await transport.close()
    if unknown:
        raise Forbidden("The cloud does not know this token: it was never made there, was taken back, or expired long "
                        "ago. Make another with `nacre token create`.")
    asked = ", ".join(c.address for c in token.controls)
    raise Unavailable(f"No control of the cloud answers at {asked}: is this machine let through to there?")
