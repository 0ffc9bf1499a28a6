"""LevelDB's table format, in which TensorFlow keeps the index of a checkpoint: sorted keys, each with a value.

    data blocks      keys and values; a key leaves out what it shares with the one before it, but for every few, which
                     stand in full ("restart points", listed at the end of the block)
    metaindex block  empty here
    index block      for each data block a key that is not below its last, and its place
    footer           48 bytes: the places of the two blocks above, zeros, and a magic number

Every block is followed by its kind (0: plain, 1: compressed) and by the masked CRC32C of both. Everything is checked
here; what is wrong is `Damage`, of which whoever knows the file makes a CheckpointError. Source of the format:
LevelDB's doc/table_format.md; numbers without a fixed length are Protocol Buffers' varints.
"""

from collections.abc import Iterator

from .crc32c import masked_crc32c

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES, TRAILER_BYTES = 48, 5

Place = tuple[int, int]  # first byte and size of a block


class Damage(Exception):
    """What is wrong with some bytes: what was expected, and what was found."""

    def __init__(self, expected: object, found: object):
        super().__init__(expected, found)
        self.expected, self.found = expected, found


class Cursor:
    """Bytes that are read from front to back. A read beyond the end is Damage."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise Damage(f"{count} more bytes", f"{self.left}")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size: int) -> int:
        """A little-endian number of so many bytes."""
        return int.from_bytes(self.take(size), "little")

    def varint(self, limit: int = 1 << 64) -> int:
        """A number below the limit, 7 bits a byte, the lowest first; the highest bit says that there is more."""
        value, shift, more = 0, 0, True
        while more and shift < 70:
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            shift, more = shift + 7, byte & 0x80
        if more or value >= limit or (shift > 7 and not byte):
            raise Damage(f"a number below {limit}, written as short as can be", "another one, or one without an end")
        return value


def read_table(data: bytes) -> dict[bytes, bytes]:
    """All keys of a table, in order, and their values. Raises Damage."""
    if len(data) < FOOTER_BYTES or not data.endswith(MAGIC.to_bytes(8, "little")):
        raise Damage("the mark of a LevelDB table in the last 8 bytes", data[-8:].hex() or "an empty file")
    footer = Cursor(data[-FOOTER_BYTES:-8])
    metaindex, index = read_place(footer), read_place(footer)
    if any(footer.take(footer.left)):
        raise Damage("zeros between the two places in the footer and the mark", "something else")
    rows = read_block(data, index)
    cursors = [Cursor(value) for _, value in rows]
    places = [read_place(cursor) for cursor in cursors]
    if any(cursor.left for cursor in cursors) or read_block(data, metaindex):
        raise Damage("one place for each data block, and no blocks of other kinds", "something more")
    check_no_gaps([*places, metaindex, index], len(data) - FOOTER_BYTES)
    entries: dict[bytes, bytes] = {}
    before = None  # the row of the index for the block before: no key of the next may be so low
    for (bound, _), place in zip(rows, places, strict=True):
        keys = list(block := dict(read_block(data, place)))
        if not keys or keys[-1] > bound or (before is not None and keys[0] <= before):
            raise Damage("data blocks in order, each within its row of the index", f"{len(keys)} keys out of it")
        entries |= block
        before = bound
    return entries


def read_place(cursor: Cursor) -> Place:
    return cursor.varint(), cursor.varint()


def check_no_gaps(places: list[Place], end: int) -> None:
    """Blocks and their trailers must fill the file up to a place, each byte once. Raises Damage."""
    at = 0
    for start, size in sorted(places):
        if start != at:
            raise Damage(f"a block that starts at byte {at}", f"one at byte {start}")
        at += size + TRAILER_BYTES
    if at != end:
        raise Damage(f"blocks of {end} bytes in all", f"{at} bytes")


def read_block(data: bytes, place: Place) -> list[tuple[bytes, bytes]]:
    """The keys and values of one block, in order; its CRC is checked. Raises Damage."""
    start, size = place
    if start + size + TRAILER_BYTES > len(data) - FOOTER_BYTES:
        raise Damage("a block that ends before the footer", f"{size} bytes at byte {start}")
    content, kind, stored = data[start : start + size], data[start + size], data[start + size + 1 :][:4]
    if masked_crc32c(content + bytes([kind])) != int.from_bytes(stored, "little"):
        raise Damage(f"a block of {size} bytes at {start} with the CRC that stands after it", "another CRC")
    if kind:
        raise Damage("blocks that are not compressed, as TensorFlow writes them", f"compression of kind {kind}")
    if size < 8 or (count := int.from_bytes(content[-4:], "little")) > size // 4 - 1 or not count:
        raise Damage("a list of restart points at the end of the block", f"{size} bytes without one")
    end = size - 4 - 4 * count
    restarts = [int.from_bytes(content[at : at + 4], "little") for at in range(end, size - 4, 4)]
    entries, full = [], {0}  # places of keys that stand in full
    for at, shared, key, value in read_entries(content[:end]):
        if entries and key <= entries[-1][0]:
            raise Damage("every key once, in ascending order", repr(key)[:200])
        entries.append((key, value))
        full |= set() if shared else {at}
    if restarts[0] != 0 or restarts != sorted(set(restarts)) or not full.issuperset(restarts):
        raise Damage("restart points at keys that stand in full, in order", f"{restarts[:8]}")
    return entries


def read_entries(content: bytes) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Each entry of a block: its place, how much of its key the one before it has, the whole key, and the value."""
    cursor, key = Cursor(content), b""
    while cursor.left:
        at, shared, fresh, size = cursor.at, cursor.varint(), cursor.varint(), cursor.varint()
        if shared > len(key):
            raise Damage(f"a key that shares at most {len(key)} bytes with the one before it", shared)
        key = key[:shared] + cursor.take(fresh)
        yield at, shared, key, cursor.take(size)
