"""The compute API as one `Service`: every noun's routes, under /compute."""

from dataclasses import dataclass

from nacre.base.web import Service
from nacre.compute.api import versions
from nacre.compute.api.faults import render
from nacre.compute.api.flavors import FlavorRoutes
from nacre.compute.api.keypairs import KeyPairRoutes
from nacre.compute.api.microversions import Microversions
from nacre.compute.flavors import Flavors
from nacre.compute.keypairs import KeyPairs
from nacre.compute.quotas import Quotas
from nacre.identity.contract import Identity, Policy

PREFIX = "/compute"


@dataclass(frozen=True)
class Parts:
    """What the API speaks for."""

    policy: Policy
    identity: Identity
    flavors: Flavors
    keypairs: KeyPairs
    quotas: Quotas


def service(parts: Parts) -> Service:
    """The service to put into `App`."""
    routes = [
        *versions.ROUTES,
        *FlavorRoutes(parts.flavors, parts.policy, parts.identity).routes(),
        *KeyPairRoutes(parts.keypairs, parts.quotas, parts.policy).routes(),
    ]
    return Service("compute", PREFIX, routes, render, Microversions(),
                   request_id_headers=("x-openstack-request-id", "x-compute-request-id"))
