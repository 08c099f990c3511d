"""Shingles, signatures and banding find what is similar, with rensa and without."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metier.prepare.minhash import HASHES, candidates, jaccard, shingle_sets, signatures


def naive(text, size):
    return {text[place : place + size] for place in range(max(1, len(text) - size + 1))}


@given(st.lists(st.text(alphabet="ab高血压 \U00020000", min_size=0, max_size=30), min_size=1, max_size=6), st.integers(2, 13))
def test_shingles_are_those_of_each_text_alone(texts, size):
    hashes, offsets = shingle_sets(texts, size)
    assert len(offsets) == len(texts) + 1
    assert offsets[-1] == len(hashes)
    sets = [set(hashes[offsets[place] : offsets[place + 1]].tolist()) for place in range(len(texts))]
    for text, found in zip(texts, sets, strict=True):
        assert len(found) == len(naive(text, size))
    for left, one in zip(texts, sets, strict=True):
        for right, other in zip(texts, sets, strict=True):
            assert len(one & other) == len(naive(left, size) & naive(right, size))


def test_no_texts_have_no_shingles():
    hashes, offsets = shingle_sets([], 5)
    assert len(hashes) == 0
    assert signatures(hashes, offsets).shape == (0, HASHES)


@pytest.mark.parametrize("using", ["rensa", "numpy"])
def test_equal_entries_of_signatures_estimate_the_jaccard_similarity(using):
    rng = np.random.default_rng(3)
    base = "".join(chr(0x4E00 + int(code)) for code in rng.integers(0, 2000, 600))
    texts = [base, base[:450] + "".join(chr(0x5E00 + int(code)) for code in rng.integers(0, 2000, 150)), base[::-1]]
    hashes, offsets = shingle_sets(texts, 5)
    matrix = signatures(hashes, offsets, using=using)
    assert matrix.shape == (3, HASHES)
    sets = [np.unique(hashes[offsets[place] : offsets[place + 1]]) for place in range(3)]
    assert (matrix[0] == matrix[1]).mean() == pytest.approx(jaccard(sets[0], sets[1]), abs=0.13)
    assert (matrix[0] == matrix[2]).mean() == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("using", ["rensa", "numpy"])
def test_banding_finds_similar_pairs_and_few_others(using):
    rng = np.random.default_rng(5)
    texts = []
    for _ in range(100):
        base = [chr(0x4E00 + int(code)) for code in rng.integers(0, 3000, 300)]
        copy = list(base)
        for place in rng.choice(300, 5, replace=False):
            copy[place] = "\u9fa0"
        texts += ["".join(base), "".join(copy)]
    hashes, offsets = shingle_sets(texts, 5)
    pairs = set(candidates(signatures(hashes, offsets, using=using)))
    planted = {(place, place + 1) for place in range(0, 200, 2)}
    assert len(pairs & planted) >= 95
    assert len(pairs - planted) <= 5


def test_big_buckets_stay_connected():
    matrix = np.ones((100, HASHES), dtype=np.uint32)
    pairs = set(candidates(matrix))
    assert len(pairs) < 300
    reached = {0}
    for left, right in sorted(pairs):
        if left in reached:
            reached.add(right)
    assert reached == set(range(100))


def test_jaccard_is_exact():
    left, right = np.array([1, 2, 3, 4], dtype=np.uint64), np.array([3, 4, 5], dtype=np.uint64)
    assert jaccard(left, right) == 2 / 5
    assert jaccard(left, left) == 1
