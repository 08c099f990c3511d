"""The check of a whole log as a stream of entries: hashes, order, and every signed head on the way. Needs the public key only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from metier.audit.entries import read_envelope
from metier.audit.merkle import Frontier, leaf_hash
from metier.audit.notes import NO_HEAD, PublicKey, SignedHead
from metier.errors import LedgerError

__all__ = ["LogCheck", "check_chain"]


def check_chain(heads: Sequence[SignedHead], last: SignedHead, key: PublicKey) -> None:
    """Check the stored heads and the newest one: signatures, sizes that grow, each naming the one before it. Raises LedgerError."""
    previous, size = NO_HEAD, -1
    for head in heads:
        head.check(key)
        if head.origin != last.origin:
            raise LedgerError(f"the head of {head.size} entries belongs to another log")
        if head.previous != previous or head.size <= size:
            raise LedgerError(f"a signed head is missing or out of place before the one of {head.size} entries")
        previous, size = head.digest, head.size
    last.check(key)
    # The newest head may itself be among the stored ones.
    if last.size < size or (last.previous != previous and not (heads and last.digest == previous)):
        raise LedgerError(f"the newest head, of {last.size} entries, does not follow the stored heads: heads were removed or exchanged")


class LogCheck:
    """Feed it every entry in order, then `finish`. Raises LedgerError, naming the entry, at the first thing that is wrong."""

    def __init__(self, heads: Iterable[SignedHead]) -> None:
        """Take every head that the log has to agree with; their signatures have been checked."""
        self.frontier = Frontier()
        self.backwards = 0
        self._heads = sorted(heads, key=lambda head: head.size, reverse=True)
        self._agreed = 0
        self._time = ""
        self._due = -1
        self._compare()

    def add(self, envelope: bytes, leaf: bytes | None) -> dict[str, Any]:
        """Check one more entry against its stored hash, if there is one, and return its fields."""
        index = self.frontier.size
        found = leaf_hash(envelope)
        if leaf is not None and found != leaf:
            raise LedgerError(f"entry {index} was changed: it does not have the hash that is stored with it")
        fields = read_envelope(envelope, index)
        self.frontier.append(found)
        if self.frontier.size == self._due:
            self._compare()
        time = fields["time"]
        if time < self._time:
            self.backwards += 1
        self._time = time
        return fields

    def finish(self, size: int) -> None:
        """Check that the log ends where its newest head says."""
        if self.frontier.size < size:
            raise LedgerError(f"the log ends before entry {self.frontier.size}, but {size} entries were signed: the tail was cut or an older copy was restored")
        if self.frontier.size > size:
            raise LedgerError(f"entry {size} and what follows was never signed: entries were added")
        if self._heads:
            raise LedgerError(f"a head of {self._heads[-1].size} entries was signed, and the log has {size}: the tail was cut or an older copy was restored")

    def _compare(self) -> None:
        """Hold every head of the present size against the tree, and note which size is next."""
        size = self.frontier.size
        while self._heads and self._heads[-1].size == size:
            head = self._heads.pop()
            if head.root != self.frontier.root():
                where = f"entry {self._agreed}" if size - self._agreed <= 1 else f"an entry between {self._agreed} and {size - 1}"
                raise LedgerError(f"the log is not the one whose first {size} entries were signed: {where} was changed, removed, added or moved")
        self._agreed = size
        self._due = self._heads[-1].size if self._heads else -1
