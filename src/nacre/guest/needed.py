"""Prints the libraries that an ELF program asks for, as `objdump -p` would: for machines without binutils."""

import struct
import sys
from pathlib import Path

LOAD, DYNAMIC, NEEDED, STRTAB = 1, 2, 1, 5


def needed(data: bytes) -> list[str]:
    """The names, in order. data: a 64-bit little-endian ELF file."""
    at, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    segments = [struct.unpack_from("<IIQQQQ", data, at + size * i) for i in range(count)]
    dynamic = [s for s in segments if s[0] == DYNAMIC]
    if not dynamic:
        return []
    start, length = dynamic[0][2], dynamic[0][5]
    tags = [struct.unpack_from("<QQ", data, start + i) for i in range(0, length, 16)]
    address = next(value for tag, value in tags if tag == STRTAB)
    load = next(s for s in segments if s[0] == LOAD and s[3] <= address < s[3] + s[5])
    strings = address - load[3] + load[2]
    return [data[strings + value:data.index(b"\0", strings + value)].decode() for tag, value in tags if tag == NEEDED]


if __name__ == "__main__":
    for name in needed(Path(sys.argv[1]).read_bytes()):
        print(f"  NEEDED  {name}")
