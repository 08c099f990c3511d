"""Signatures and banding find what is similar, with rensa and without."""

import numpy as np
import pytest

from metier.prepare.minhash import HASHES, Banding, band_keys, banding, jaccard, signatures
from metier.prepare.shingles import distinct, shingle_sets


def test_no_texts_have_no_signatures():
    assert signatures(*shingle_sets([])).shape == (0, HASHES)


@pytest.mark.parametrize("using", ["rensa", "numpy"])
def test_equal_entries_of_signatures_estimate_the_jaccard_similarity(using):
    rng = np.random.default_rng(3)
    base = "".join(chr(0x4E00 + int(code)) for code in rng.integers(0, 2000, 600))
    texts = [base, base[:450] + "".join(chr(0x5E00 + int(code)) for code in rng.integers(0, 2000, 150)), base[::-1]]
    hashes, offsets = shingle_sets(texts)
    matrix = signatures(hashes, offsets, using=using)
    assert matrix.shape == (3, HASHES)
    sets = distinct(hashes, offsets)
    assert (matrix[0] == matrix[1]).mean() == pytest.approx(jaccard(sets[0], sets[1]), abs=0.13)
    assert (matrix[0] == matrix[2]).mean() == pytest.approx(0, abs=0.03)


def test_signatures_do_not_depend_on_the_texts_beside_them():
    texts = ["高血压患者的随访记录。" * 20, "short", "x" * 300, "一"]
    together = signatures(*shingle_sets(texts), using="numpy")
    for place, text in enumerate(texts):
        assert np.array_equal(together[place], signatures(*shingle_sets([text]), using="numpy")[0])


@pytest.mark.parametrize(("threshold", "expected"), [(0.7, (25, 5)), (0.8, (18, 7)), (0.9, (10, 12)), (1.0, (1, 128)), (0.5, (42, 3))])
def test_the_banding_fits_the_threshold(threshold, expected):
    found = banding(threshold)
    assert found == expected
    assert found.probability(threshold) >= 0.95
    assert Banding(HASHES // (found.rows + 1) or 1, found.rows + 1).probability(min(threshold, 0.99)) < 0.95


@pytest.mark.parametrize("using", ["rensa", "numpy"])
def test_keys_of_similar_texts_meet_and_few_others(using):
    rng = np.random.default_rng(5)
    texts = []
    for _ in range(100):
        base = [chr(0x4E00 + int(code)) for code in rng.integers(0, 3000, 300)]
        copy = list(base)
        for place in rng.choice(300, 5, replace=False):
            copy[place] = "\u9fa0"
        texts += ["".join(base), "".join(copy)]
    keys = band_keys(signatures(*shingle_sets(texts), using=using), banding(0.7))
    equal = (keys[:, None, :] == keys[None, :, :]).any(axis=2)
    planted = [equal[place, place + 1] for place in range(0, 200, 2)]
    assert sum(planted) == 100
    assert (int(equal.sum()) - 200) / 2 - 100 <= 2


def test_keys_of_different_bands_differ():
    keys = band_keys(np.ones((3, HASHES), dtype=np.uint32), Banding(25, 5))
    assert np.array_equal(keys[0], keys[1])
    assert len(np.unique(keys)) == 25


def test_jaccard_is_exact():
    left, right = np.array([1, 2, 3, 4], dtype=np.uint64), np.array([3, 4, 5], dtype=np.uint64)
    assert jaccard(left, right) == 2 / 5
    assert jaccard(left, left) == 1
    assert jaccard(left[:0], left[:0]) == 1
    assert jaccard(left[:0], left) == 0
