"""The Merkle tree of RFC 6962, section 2.1: leaf and node hashes, roots as a log grows, inclusion and consistency proofs.

A leaf is hashed with the prefix 0x00 and an inner node with 0x01, so that no leaf can pass for a node. All hashes are
32 raw bytes of SHA-256. Proofs are verified by the algorithms of RFC 9162, sections 2.1.3.2 and 2.1.4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import TypeAlias

__all__ = ["EMPTY_ROOT", "HASH_BYTES", "Frontier", "Node", "consistency_path", "inclusion_path", "is_consistent", "is_included", "leaf_hash", "node_hash"]

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
"""The root of a log without entries."""

Node: TypeAlias = Callable[[int, int], bytes]
"""`node(level, number)` returns the hash over the 2**level leaves from number * 2**level on; all of them exist."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of an entry."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """A growing tree's perfect subtrees, the largest first: all that is needed to append and to say the root."""

    __slots__ = ("hashes", "size")

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        self.size = size
        self.hashes = list(hashes)

    def append(self, leaf: bytes) -> None:
        """Add the hash of one more leaf."""
        size, hashes = self.size, self.hashes
        while size & 1:
            leaf = node_hash(hashes.pop(), leaf)
            size >>= 1
        hashes.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Return the root of the tree as it is now."""
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = node_hash(left, root)
        return root

    def copy(self) -> Frontier:
        """Return a frontier that grows apart from this one."""
        return Frontier(self.size, self.hashes)

    def to_bytes(self) -> bytes:
        """Return the hashes one after the other."""
        return b"".join(self.hashes)

    @classmethod
    def from_bytes(cls, size: int, data: bytes) -> Frontier:
        """Return the frontier of a size from its hashes. Raises ValueError if their number does not fit the size."""
        if len(data) != size.bit_count() * HASH_BYTES:
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} perfect subtrees")
        return cls(size, [data[place : place + HASH_BYTES] for place in range(0, len(data), HASH_BYTES)])


def inclusion_path(index: int, size: int, node: Node) -> list[bytes]:
    """Return the audit path of a leaf (from 0) in the tree of `size` leaves, nearest sibling first. Raises ValueError for an index outside."""
    if not 0 <= index < size:
        raise ValueError(f"there is no entry {index} in a log of {size}")
    path = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_range_hash(middle, high, node))
            high = middle
        else:
            path.append(_range_hash(low, middle, node))
            low = middle
    return path[::-1]


def consistency_path(old: int, new: int, node: Node) -> list[bytes]:
    """Return the proof that the tree of `old` leaves is the beginning of that of `new`. Raises ValueError unless 0 <= old <= new."""
    if not 0 <= old <= new:
        raise ValueError(f"a log of {new} entries has no earlier state of {old}")
    if old in (0, new):
        return []
    path = []
    low, high, whole = 0, new, True
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(_range_hash(middle, high, node))
            high = middle
        else:
            path.append(_range_hash(low, middle, node))
            low, whole = middle, False
    if not whole:
        path.append(_range_hash(low, high, node))
    return path[::-1]


def is_included(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Say whether `path` proves that the leaf hash stands at `index` (from 0) of the tree with that size and root."""
    if not 0 <= index < size:
        return False
    first, last, found = index, size - 1, leaf
    for item in path:
        if last == 0:
            return False
        if first & 1 or first == last:
            found = node_hash(item, found)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            found = node_hash(found, item)
        first, last = first >> 1, last >> 1
    return last == 0 and found == root


def is_consistent(old: int, new: int, path: Sequence[bytes], old_root: bytes, new_root: bytes) -> bool:
    """Say whether `path` proves that the tree of `old` leaves is the beginning of the tree of `new` leaves."""
    if not 0 <= old <= new:
        return False
    if old == new:
        return not path and old_root == new_root
    if old == 0:
        return not path and old_root == EMPTY_ROOT
    proof = list(path) if old & (old - 1) else [old_root, *path]
    if not proof:
        return False
    first, last = old - 1, new - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    found_old = found_new = proof[0]
    for item in proof[1:]:
        if last == 0:
            return False
        if first & 1 or first == last:
            found_old, found_new = node_hash(item, found_old), node_hash(item, found_new)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            found_new = node_hash(found_new, item)
        first, last = first >> 1, last >> 1
    return last == 0 and found_old == old_root and found_new == new_root


def _split(size: int) -> int:
    """The largest power of two that is smaller than `size`, which is at least 2."""
    return 1 << ((size - 1).bit_length() - 1)


def _range_hash(low: int, high: int, node: Node) -> bytes:
    """The hash over the leaves low..high of a range that the tree's own halving arrives at."""
    size = high - low
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return node(level, low >> level)
    middle = low + _split(size)
    return node_hash(_range_hash(low, middle, node), _range_hash(middle, high, node))
