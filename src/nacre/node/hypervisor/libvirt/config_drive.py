"""The config drive: what a guest is told about itself, as a small ISO (label config-2)."""

import io
import os
from collections.abc import Mapping
from typing import Any

import pycdlib

from nacre.node.contract import BuildOrder, SpawnOrder
from nacre.node.metadata_content import metadata_documents

SEED_BYTES = 512


def drive_documents(order: BuildOrder, spawn: SpawnOrder) -> dict[str, bytes]:
    """Every file of the drive by its path."""
    return metadata_documents(spawn.guest or order.guest, spawn.ports, spawn.networks, drive=True,
                              random_seed=os.urandom(SEED_BYTES))


def iso(documents: Mapping[str, bytes]) -> bytes:
    """The image's bytes: ISO 9660 with Joliet and Rock Ridge, as guests expect (ISO 9660's own names mean nothing)."""
    disc = pycdlib.PyCdlib()
    disc.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="config-2", sys_ident="LINUX")
    folders: dict[str, str] = {"": ""}
    for number, (path, body) in enumerate(sorted(documents.items())):
        folder, _, name = path.rpartition("/")
        short = _folder(disc, folders, folder)
        disc.add_fp(io.BytesIO(body), len(body), iso_path=f"{short}/F{number:07d}.;1", rr_name=name,
                    joliet_path=f"/{path}")
    out = io.BytesIO()
    disc.write_fp(out)
    disc.close()
    return out.getvalue()


def _folder(disc: Any, folders: dict[str, str], path: str) -> str:
    """The ISO 9660 path of a folder, made with all above it."""
    if path not in folders:
        above, _, name = path.rpartition("/")
        folders[path] = f"{_folder(disc, folders, above)}/D{len(folders):07d}"
        disc.add_directory(folders[path], rr_name=name, joliet_path=f"/{path}")
    return folders[path]
