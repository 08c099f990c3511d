"""The proof is what anybody computes from the folder; what is shared is counted, what is changed is seen."""

import dataclasses
import hashlib
import json

import pytest

from corpus_of_prepare import chat, distinct, made
from metier.errors import InputError
from metier.prepare.proof import check_proof, prove, write_proof
from metier.records import identify
from metier.shards import read_records, write_records, write_rows

LONG = "患者因反复头晕三年入院，既往有高血压病史，规律服药，血压控制尚可，近一周来头晕加重，伴有恶心，没有呕吐，无肢体麻木，为进一步诊治收入我科。"
ENGLISH = "A tenant who paid two months of rent in advance wants to leave the flat early because the heating has not worked since the first week."
COLUMNS = {"record_id": "string", "cluster": "string"}


def folder_of(root, splits):
    """Write a dataset folder: `splits` maps names to records; every record is its own cluster."""
    root.mkdir(parents=True, exist_ok=True)
    for split, records in splits.items():
        write_records(root / f"part-{split}-00000.parquet", records)
    write_rows(root / "lineage.parquet", [{"record_id": item.id, "cluster": item.id} for records in splits.values() for item in records], COLUMNS)
    return root


def rfc6962(leaves):
    """Compute the Merkle tree hash as RFC 6962, 2.1, words it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + rfc6962(leaves[:half]) + rfc6962(leaves[half:])).digest()


def test_the_root_is_that_of_ids_and_splits_in_order(tmp_path):
    records = distinct(23)
    folder = folder_of(tmp_path / "d", {"train": records[:17], "validation": records[17:20], "test": records[20:]})
    proof = prove(folder)
    names = ["train"] * 17 + ["validation"] * 3 + ["test"] * 3
    leaves = sorted(f"{record.id}\0{name}".encode() for record, name in zip(records, names, strict=True))
    assert proof["root"] == rfc6962(leaves).hex()
    assert proof["splits"] == {"train": 17, "validation": 3, "test": 3}
    assert proof["holds"]
    assert proof["similar"] == {"near": 0, "guarded": 0, "conflicts": 0, "related": 0}


def test_a_built_dataset_is_proved_and_a_changed_one_is_not(tmp_path):
    folder = made(tmp_path, distinct(40)).path
    write_proof(folder, prove(folder, by=("subject", "group", "prompt")))
    assert check_proof(folder) == []
    part = next(folder.glob("part-train-*.parquet"))
    records = list(read_records(part))
    write_records(part, records[1:])
    assert [line.partition(":")[0] for line in check_proof(folder)] == ["keys", "records", "root", "splits"]


def test_a_proof_written_twice_has_the_same_bytes(tmp_path):
    folder = folder_of(tmp_path / "d", {"train": distinct(9)})
    assert write_proof(folder, prove(folder)).read_bytes() == write_proof(folder, prove(folder)).read_bytes()


@pytest.mark.parametrize(("text", "edit"), [(LONG, ("加重", "明显")), (ENGLISH, ("early", "soon"))])
def test_what_stands_nearly_the_same_in_two_splits_is_counted_whatever_the_clusters_say(tmp_path, text, edit):
    copy = chat(2, text * 2 + text.replace(*edit), "好。")
    folder = folder_of(tmp_path / "d", {"train": [chat(1, text * 3, "好。"), *distinct(5)], "test": [copy]})
    proof = prove(folder)
    assert proof["similar"]["near"] == 1
    assert proof["holds"]  # by keys alone nothing is shared; the figures beside them say that something is
    assert sum(proof["ngrams"]["training_records"]["test"].values()) == 1


def test_a_dose_that_differs_across_splits_is_counted_apart(tmp_path):
    folder = folder_of(tmp_path / "d", {"train": [chat(1, f"{LONG * 3}每次5mg", "好。")], "test": [chat(2, f"{LONG * 3}每次50mg", "好。")]})
    assert prove(folder)["similar"] == {"near": 0, "guarded": 1, "conflicts": 0, "related": 0}


def test_another_answer_across_splits_is_counted_apart_and_breaks_the_proof_where_prompts_count(tmp_path):
    folder = folder_of(tmp_path / "d", {"train": [chat(1, LONG, "可以。")], "validation": [chat(2, LONG, "绝对不可以，请停药")]})
    proof = prove(folder, by=("prompt",))
    assert proof["similar"]["conflicts"] == 1
    assert proof["keys"]["prompt"] == {"distinct": 1, "shared": 1}
    assert not proof["holds"]
    assert prove(folder)["holds"]


def test_a_proof_holds_no_text_and_no_id(tmp_path):
    secret = chat(1, "身份证11010519491231002X的张三", "知道了。", subject="s-1")
    secret = dataclasses.replace(secret, id=identify(secret))
    folder = folder_of(tmp_path / "d", {"train": [secret], "test": [chat(2, "张三的另一个问题", "不知道。", subject="s-1")]})
    written = write_proof(folder, prove(folder, by=("subject",))).read_text()
    assert json.loads(written)["keys"]["subject"] == {"distinct": 1, "shared": 1}
    assert not any(word in written for word in ("110105", "张三", secret.id, "s-1"))


def test_what_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(InputError, match="no parts"):
        prove(tmp_path)
    folder = folder_of(tmp_path / "d", {"train": distinct(3)})
    with pytest.raises(InputError, match="no proof that can be read"):
        check_proof(folder)
    (folder / "proof.json").write_text('{"settings": {}}')
    with pytest.raises(InputError, match="no proof that can be read"):
        check_proof(folder)
