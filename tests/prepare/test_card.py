"""The data card stands alone: every fact in words, every picture with its numbers beside it, the gaps named, and the same for machines."""

import json
import re
from xml.etree import ElementTree

import pytest

from corpus_of_prepare import chat, row
from metier.prepare.bias import BiasSettings, bias_facts, group_views
from metier.prepare.card import card_files, data_card
from metier.prepare.charts import bars, columns, shares
from metier.prepare.labels import class_balance, label_facts
from metier.prepare.lengths import length_report
from metier.prepare.quality import QualitySettings, Summary, assess


def facts(**more):
    entry = {
        "uri": "data/蜂场.jsonl",
        "sha256": "1" * 64,
        "rows": 40,
        "malformed": 0,
        "encoding": "utf-8",
        "encoding_reason": "declared",
        "licence": "internal",
    }
    return {
        "records": 40,
        "rows": 40,
        "counts": {"split": {"train": 32, "validation": 4, "test": 4}, "language": {"zh": 30, "en": 10}, "task": {"chat": 40}, "licence": {"internal": 40}},
        "drops": {"too_short": 3, "near_duplicate": 2},
        "identifiers": {"PERSON": 4},
        "pack": {"name": "example", "version": "1", "digest": "2" * 64},
        "languages": ["zh", "en"],
        "register": [
            {**entry, "basis": None, "templates": []},
            {**entry, "uri": "b.csv", "basis": "contract", "owner": "养蜂站", "retention": "2030-01-01", "sensitive": ["name"]},
        ],
        "steps": [{"name": "clean", "settings": {"blanks": True}}],
        "duplicates": {"exact": 1},
        "disjoint": {"subject": {"distinct": 3, "shared": 0}},
        **more,
    }


@pytest.fixture(scope="module")
def full():
    records = [
        chat(
            number,
            f"第{number}箱蜂有多重，女主人今年4{number % 10}岁？",
            f"第{number}箱蜂重三十公斤，" * (1 + number % 5) + "请按时称量。",
            label="重" if number % 3 else "轻",
            language="zh",
        )
        for number in range(30)
    ]
    summary = Summary()
    for item in assess(records, QualitySettings()):
        summary.add(item)
    views = group_views(records, BiasSettings())
    return facts(
        quality=summary.facts(QualitySettings()),
        lengths=length_report(records, lambda record: sum(len(message.content) for message in record.messages), maximum=60),
        labels=label_facts(class_balance(records), 2, None),
        topics=[{"terms": ["蜂箱", "称重"], "records": 30, "share": 1.0, "labels": {"重": 20}}],
        groups=bias_facts(views, (), least=5)["groups"],
        drops_by_step={"quality": {"too_short": 3}, "dedup": {"near_duplicate": 2}},
    )


def test_the_smallest_card_needs_only_what_every_dataset_says():
    text = data_card(facts(), title="example")
    for part in ("# Data card: example", "| train | 32 |", "| too_short | 3 |", "养蜂站", "2030-01-01", "not stated", "## Known limits"):
        assert part in text
    assert "![" not in text


def test_what_is_missing_is_named():
    text = data_card(facts(), title="example")
    assert "- data/蜂场.jsonl: basis, owner, retention not stated" in text
    assert "- quality was not measured" in text
    assert "b.csv:" not in text
    assert "facts was not measured for any record" in data_card(facts(quality={**_quality()}), title="x")


def _quality():
    return Summary().facts(QualitySettings())


def test_every_part_has_its_section_and_every_picture_is_there(full):
    files = card_files(full, title="example")
    text = files["card.md"].decode()
    for part in (
        "## Lengths",
        "## Quality",
        "## Labels",
        "### age (signs in the text)",
        "## Topics",
        "| quality | too_short | 3 |",
        "more than 60 tokens",
        "蜂箱, 称重",
    ):
        assert part in text
    shown = set(re.findall(r"!\[[^]]*\]\(([^)]+)\)", text))
    assert shown == {name for name in files if name.endswith(".svg")}
    assert len(shown) >= 8


def test_pictures_are_whole_svg_with_chinese_labels(full):
    for name, content in card_files(full, title="example").items():
        if name.endswith(".svg"):
            root = ElementTree.fromstring(content)
            assert root.get("viewBox").startswith("0 0 980")
            assert root.find("{http://www.w3.org/2000/svg}style") is not None
    labels = card_files(full, title="example")["card-labels-1.svg"].decode()
    assert ">重<" in labels


def test_the_machine_readable_card_says_the_same(full):
    card = json.loads(card_files(full, title="example")["card.json"])
    assert card["@type"] == "sc:Dataset"
    assert card["license"] == ["internal"]
    assert [item["@id"] for item in card["recordSet"]] == ["train", "validation", "test"]
    assert card["metier:facts"]["drops"] == full["drops"]
    assert "data/蜂场.jsonl: basis, owner, retention not stated" in card["rai:dataLimitations"]
    assert card["rai:personalSensitiveInformation"] == ["name"]
    sets = {item["@id"] for item in card["distribution"]}
    assert {field["source"]["fileSet"]["@id"] for split in card["recordSet"] for field in split["field"]} == sets


def test_no_text_of_a_record_stands_in_a_card(full):
    for content in card_files(full, title="example").values():
        assert "请按时称量" not in content.decode()


def test_a_name_that_is_markup_is_only_text():
    picture = str(bars({"<script>alert(1)</script>": 3, "a|b": 2}, title='"><x>'))
    assert "<script>" not in picture
    ElementTree.fromstring(picture)
    assert "a\\|b" in data_card(facts(drops={"a|b": 1}), title="x")


def test_long_lists_are_summed_up_and_nothing_is_drawn_from_nothing():
    picture = str(bars({f"名字{number}": number + 1 for number in range(50)}, title="t", most=10))
    assert ">41 others<" in picture
    assert str(bars({}, title="t")) == str(columns({"1": 0}, title="t", x_label="x")) == str(shares({}, title="t")) == ""
    ElementTree.fromstring(str(shares({"组": {f"l{number}": number for number in range(12)}}, title="t")))
    assert row(1).id
