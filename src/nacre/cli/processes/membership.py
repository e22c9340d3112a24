"""What makes a data folder that of a host which joined a cloud elsewhere: kept at the join, for every start after."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from nacre.base.durable.files import write_whole
from nacre.base.errors import NacreError

if TYPE_CHECKING:
    from nacre.cloud.contract import Joined

_FILE = Path("node") / "joined.json"
_CONTROLS = Path("node") / "controls.json"


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """name: the host's in the cloud; address: where it answers ("": the one on the way to the controls)."""

    cloud: str
    name: str
    vxlan_port: int
    hypervisor: str
    address: str = ""


def membership(data: Path) -> Membership | None:
    """Of the host whose folder this is; None: it is none, or that of a cloud of this machine."""
    try:
        return msgspec.json.decode((data / _FILE).read_bytes(), type=Membership)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        if os.path.exists(data / "control"):  # the folder of a cloud under sudo, looked at by its user
            return None
        raise NacreError(f"{data / _FILE} cannot be read: {error}.") from None
    except (OSError, msgspec.DecodeError) as error:
        raise NacreError(f"{data / _FILE} cannot be read: {error}.") from None


def controls(data: Path) -> list[tuple[str, str]]:
    """Name and address of those that the host knows: of the join, and then whatever the cloud said last."""
    try:
        return [(c["id"], c["address"]) for c in msgspec.json.decode((data / _CONTROLS).read_bytes())]
    except (FileNotFoundError, msgspec.DecodeError):
        return []


def keep(data: Path, member: Membership, joined: "Joined") -> None:
    """The membership last: with it there, the rest is."""
    write_whole(data / _CONTROLS, msgspec.json.encode(joined.controls))
    write_whole(data / _FILE, msgspec.json.encode(member))
