"""Where the boot partition of an image lies. Pure."""

import struct

SECTOR_BYTES = 512
FIRST_ENTRY = 446
ENTRY_BYTES = 16
SIGNATURE = b"\x55\xaa"
FAT_TYPES = frozenset({0x04, 0x06, 0x0B, 0x0C, 0x0E})
PACKED = {b"\xfd7zXZ\0": "unxz", b"\x1f\x8b": "gunzip", b"PK\x03\x04": "unzip", b"\x28\xb5\x2f\xfd": "unzstd"}
"""How files begin that are an image only when they have been unpacked, and by which program."""


class NoBootPartitionError(Exception):
    """Why there is none, and what helps."""


def boot_offset(first_sector: bytes, size: int) -> int:
    """Where the first FAT partition of an image of `size` bytes begins, in bytes.

    Raises:
        NoBootPartitionError: it is packed, is no image, has none, or ends before it does.
    """
    if tool := next((tool for magic, tool in PACKED.items() if first_sector.startswith(magic)), None):
        raise NoBootPartitionError(f"it is packed; unpack it first: {tool}")
    if len(first_sector) < SECTOR_BYTES or first_sector[510:512] != SIGNATURE:
        raise NoBootPartitionError("it has no partition table, so it is no image of a card; name an unpacked .img")
    for number in range(4):
        entry = first_sector[FIRST_ENTRY + number * ENTRY_BYTES :][:ENTRY_BYTES]
        kind, (start, sectors) = entry[4], struct.unpack("<II", entry[8:])
        if kind in FAT_TYPES and start and sectors:
            if (start + sectors) * SECTOR_BYTES > size:
                raise NoBootPartitionError("it ends before its boot partition does; download or copy it again")
            return int(start) * SECTOR_BYTES
    raise NoBootPartitionError(
        "it has no FAT partition, where a Raspberry Pi boots from; name an image of Raspberry Pi OS"
    )
