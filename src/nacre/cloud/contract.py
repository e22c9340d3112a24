"""What a machine that wants to become a host may ask of a control process: one thing."""

from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from nacre.base import bounds
from nacre.base.rpc.target import Target
from nacre.conductor.contract import ControlAddress

TARGET = Target(topic="control", namespace="join", version="1.0")


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True):
    """token: whole, as it was given out; name: what the host shall be called; public_key: by which it is known from
    then on."""

    token: bounds.Facts
    name: Annotated[str, Meta(max_length=1024)]
    public_key: Annotated[str, Meta(max_length=1024)]
    version: bounds.Version = ""


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """cloud: whose host the machine is now; controls: all that it speaks to; vxlan_port: UDP, the same on all hosts."""

    cloud: str
    controls: tuple[ControlAddress, ...]
    vxlan_port: int


class Joins(Protocol):
    """For those whose key is a token's."""

    async def join(self, request: JoinRequest) -> Joined:
        """From now on the host's key is known to all control processes. The same request again has the same answer.

        Raises BadRequest, Forbidden (the token does not count), Conflict (it was used; the name or key is taken)."""
        ...
