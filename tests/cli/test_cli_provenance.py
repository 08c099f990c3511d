"""`metier data trace` and `metier data impact` as a user runs them."""

from __future__ import annotations

import json

from cli.conftest import Finished, Invoke
from metier.project import load_project
from metier.shards import dataset_records


def test_a_record_is_traced_to_its_line_through_every_step(finished: Finished, invoke: Invoke) -> None:
    store = load_project(finished.folder).store
    record = next(iter(dataset_records(store.newest("dataset"), "train")))
    shown = invoke("data", "trace", record.id, finished.folder).out
    assert f"record {record.id}" in shown
    assert "step 1" in shown
    assert "template:" in shown
    assert f"source   data/hives.jsonl, {record.source.position}" in shown
    assert "(unchanged)" in shown
    assert "-> adapter" in shown
    document = invoke("data", "trace", record.id[:12], finished.folder, "--json").document
    assert document["back"]["children"][0]["facts"]["transforms"][-1].startswith("template:")


def test_a_digest_that_is_no_record_is_refused(finished: Finished, invoke: Invoke) -> None:
    digest = load_project(finished.folder).store.newest("adapter").digest
    ended = invoke("data", "trace", digest, finished.folder)
    assert ended.code == 2
    assert "is the adapter of that digest, not a record" in ended.err


def test_a_person_is_followed_to_the_adapter(finished: Finished, invoke: Invoke) -> None:
    keeper = json.loads((finished.folder / "data" / "hives.jsonl").read_text(encoding="utf-8").splitlines()[0])["keeper"]
    shown = invoke("data", "impact", finished.folder, "--subject", keeper).out
    assert "  adapter " in shown
    assert keeper not in shown
    document = invoke("data", "impact", finished.folder, "--source", "data/hives.jsonl", "--json").document
    assert sum(document["reached"][0]["records"].values()) == finished.document["dataset"]["records"]
    assert "in no dataset" in invoke("data", "impact", finished.folder, "--subject", "nobody").out
    ended = invoke("data", "impact", finished.folder)
    assert (ended.code, "one of the two" in ended.err) == (2, True)
