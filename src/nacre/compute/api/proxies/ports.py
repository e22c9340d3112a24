"""A server's ports, for what the compute API passes on to the network service."""

from typing import Any

from nacre.base.serving.inside import Asked
from nacre.base.web import Request
from nacre.compute.contract import Server


async def ports_of(network: Asked, request: Request) -> list[dict[str, Any]]:
    """Those of the server that the gate found, as the network service shows them to the caller, and of its project: of
    which device a port is says the port's owner."""
    server: Server = request.found
    found = await network.ask(request.context, "GET /v2.0/ports", query=[("device_id", server.id)])
    return [port for port in found["ports"] if port["project_id"] == server.project_id]
