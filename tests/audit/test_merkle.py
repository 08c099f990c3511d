"""The tree against the published vectors of Certificate Transparency and against a naive reading of RFC 6962."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metier.audit.merkle import EMPTY_ROOT, Frontier, Node, consistency_path, inclusion_path, is_consistent, is_included, leaf_hash, node_hash

# google/certificate-transparency, merkletree tests: eight inputs, the root after each, paths and proofs (leaves counted from 0 here).
INPUTS = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
PROOFS = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


def naive_root(entries: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if not entries:
        return sha256(b"").digest()
    if len(entries) == 1:
        return sha256(b"\x00" + entries[0]).digest()
    split = max(2**power for power in range(20) if 2**power < len(entries))
    return sha256(b"\x01" + naive_root(entries[:split]) + naive_root(entries[split:])).digest()


def naive_path(index: int, entries: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962, section 2.1.1, word for word."""
    if len(entries) == 1:
        return []
    split = max(2**power for power in range(20) if 2**power < len(entries))
    if index < split:
        return [*naive_path(index, entries[:split]), naive_root(entries[split:])]
    return [*naive_path(index - split, entries[split:]), naive_root(entries[:split])]


def naive_proof(old: int, entries: list[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962, section 2.1.2, word for word."""
    if old == len(entries):
        return [] if whole else [naive_root(entries)]
    split = max(2**power for power in range(20) if 2**power < len(entries))
    if old <= split:
        return [*naive_proof(old, entries[:split], whole), naive_root(entries[split:])]
    return [*naive_proof(old - split, entries[split:], False), naive_root(entries[:split])]


def nodes(entries: list[bytes]) -> Node:
    def node(level: int, number: int) -> bytes:
        if level == 0:
            return leaf_hash(entries[number])
        return node_hash(node(level - 1, 2 * number), node(level - 1, 2 * number + 1))

    return node


def grown(entries: list[bytes]) -> Frontier:
    frontier = Frontier()
    for entry in entries:
        frontier.append(leaf_hash(entry))
    return frontier


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_the_published_vectors(size: int) -> None:
    assert grown(INPUTS[:size]).root().hex() == ROOTS[size]
    assert naive_root(INPUTS[:size]).hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size"), PATHS)
def test_inclusion_paths_are_those_of_the_published_vectors(index: int, size: int) -> None:
    path = inclusion_path(index, size, nodes(INPUTS))
    assert [item.hex() for item in path] == PATHS[index, size]
    assert is_included(leaf_hash(INPUTS[index]), index, size, path, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("old", "new"), PROOFS)
def test_consistency_proofs_are_those_of_the_published_vectors(old: int, new: int) -> None:
    path = consistency_path(old, new, nodes(INPUTS))
    assert [item.hex() for item in path] == PROOFS[old, new]
    assert is_consistent(old, new, path, bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[new]))


entries_of = st.lists(st.binary(max_size=4), min_size=1, max_size=70)


@given(entries_of)
@settings(deadline=None)
def test_the_growing_root_equals_the_naive_one_at_every_size(entries: list[bytes]) -> None:
    frontier = Frontier()
    assert frontier.root() == EMPTY_ROOT
    for size, entry in enumerate(entries, 1):
        frontier.append(leaf_hash(entry))
        assert frontier.root() == naive_root(entries[:size])
        assert Frontier.from_bytes(size, frontier.to_bytes()).root() == frontier.root()


@given(entries_of, st.data())
@settings(deadline=None)
def test_inclusion_equals_the_naive_one_and_proves_nothing_else(entries: list[bytes], data: st.DataObject) -> None:
    size = len(entries)
    index = data.draw(st.integers(0, size - 1))
    path, root, leaf = inclusion_path(index, size, nodes(entries)), naive_root(entries), leaf_hash(entries[index])
    assert path == naive_path(index, entries)
    assert is_included(leaf, index, size, path, root)
    assert not is_included(leaf_hash(b"another entry"), index, size, path, root)
    assert not is_included(leaf, index, size, [*path, root], root)
    assert not is_included(leaf, size, size, path, root)
    assert not is_included(leaf, -1, size, path, root)
    if path:
        assert not is_included(leaf, index, size, path[:-1], root)
        changed = data.draw(st.integers(0, len(path) - 1))
        assert not is_included(leaf, index, size, [*path[:changed], bytes(32), *path[changed + 1 :]], root)


@given(entries_of, st.data())
@settings(deadline=None)
def test_consistency_equals_the_naive_one_and_proves_nothing_else(entries: list[bytes], data: st.DataObject) -> None:
    new = len(entries)
    old = data.draw(st.integers(1, new))
    path, old_root, new_root = consistency_path(old, new, nodes(entries)), naive_root(entries[:old]), naive_root(entries)
    assert path == naive_proof(old, entries)
    assert is_consistent(old, new, path, old_root, new_root)
    assert is_consistent(0, new, [], EMPTY_ROOT, new_root)
    assert not is_consistent(old, new, path, bytes(32), new_root)
    assert not is_consistent(old, new, path, old_root, bytes(32))
    assert not is_consistent(old, new, [*path, old_root], old_root, new_root)
    assert not is_consistent(new, old - 1, path, new_root, old_root)
    if path:
        assert not is_consistent(old, new, path[:-1], old_root, new_root)


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_no_path_for_what_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match=r"there is no entry -?\d in a log of \d"):
        inclusion_path(index, size, nodes(INPUTS))


def test_no_proof_for_a_past_that_never_was() -> None:
    with pytest.raises(ValueError, match="a log of 3 entries has no earlier state of 4"):
        consistency_path(4, 3, nodes(INPUTS))


def test_a_frontier_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a tree of 3 leaves has 2 perfect subtrees"):
        Frontier.from_bytes(3, bytes(32))
