"""Every step inside the main path: what it does to a dataset, and that what it makes stays where it belongs."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from corpus_of_prepare import Given, chat, distinct, made, pack, row, template
from metier.errors import InputError, PrivacyError
from metier.packs.spec import Term
from metier.prepare import PrepareSettings, build, check_proof, look_outside
from metier.prepare.augment import Shares
from metier.prepare.compose import Composer
from metier.prepare.deidentify import identifier_rules
from metier.prepare.drops import drop
from metier.prepare.lengths import LengthSettings, fit
from metier.prepare.quality import heuristics
from metier.prepare.quality.measures import measure
from metier.prepare.refine import Plan, refine, shown_drop
from metier.prepare.standardize import StandardizeSettings, compile_lexicon, standardize
from metier.privacy.settings import DeidentifySettings
from metier.privacy.vault import opened_vault
from metier.records import Drop, Message, Source
from metier.shards import SPLITS, dataset_records, read_drops
from metier.store import Store

PLAIN = {"deidentify": {"enabled": False}}
FEVER = Term(code="R50", system="codes", preferred={"zh": "发热", "en": "fever"}, variants=("发烧", "pyrexia"))


def no_base():
    raise AssertionError("nothing asks for the base model here")


def records_of(dataset, *splits):
    return [record for split in splits or SPLITS for record in dataset_records(dataset, split)]


def lineage_of(dataset):
    return {line["record_id"]: line for line in pq.read_table(dataset.file("lineage.parquet")).to_pylist()}


def drops_of(dataset):
    return list(read_drops(dataset.file("drops.parquet")))


def outside_of(root: Path, *, tests=(), **settings):
    return look_outside(PrepareSettings.model_validate(settings), root, base=no_base, maximum_tokens=512, languages=("zh", "en"), tests=tests)


def test_terms_get_codes_and_a_denied_one_says_so(tmp_path):
    rows = [
        *distinct(20),
        chat(50, "昨天开始发烧三十九度怎么办？", "建议到门诊查血常规。"),
        chat(51, "Patient denies pyrexia since the operation?", "Then watch the wound."),
    ]
    dataset = made(tmp_path, rows, rules=pack(lexicon=(FEVER,)), standardize={"enabled": True, "mode": "replace"}, **PLAIN)
    found = {record.source.position: record for record in records_of(dataset)}
    terms = found["line 50"].metadata["terms"]
    assert [(term["code"], term["surface"], term["negated"]) for term in terms] == [("R50", "发烧", False)]
    assert "发热" in found["line 50"].messages[0].content
    assert found["line 51"].metadata["terms"][0]["negated"] is True
    assert any(step.startswith("standardize:") for step in lineage_of(dataset)[found["line 50"].id]["transforms"])


def test_quality_labels_lengths_and_groups_are_reported_with_the_dataset(tmp_path):
    rules = pack(templates=(template("triage", "zh", ("ask", "department"), "科室？{{ask}}", "{{department}}", label="department"),))
    rows = [row(n, metadata={"ask": record.messages[0].content, "department": f"d{n % 2}"}) for n, record in enumerate(distinct(60)) if n % 2]
    against = [row(100 + n, metadata={"ask": "完全相同的一句问话应当去哪个门诊？", "department": f"d{n}"}) for n in range(2)]
    dataset = made(tmp_path, [*rows, *against], rules=rules, split={"by": ()}, **PLAIN)
    scores = pq.read_table(dataset.file("quality.parquet")).to_pylist()
    assert {line["record_id"] for line in scores} == {record.id for record in records_of(dataset)}
    assert dataset.facts["labels"]["contradictions"] == 2
    review = [json.loads(line) for line in dataset.file("labels-review.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {entry["label"] for entry in review} == {"d0", "d1"}
    assert dataset.facts["lengths"]["characters"]["all"]
    assert {"card.md", "card.json", "card-records.svg", "proof.json"} <= set(dataset.files)


def test_what_is_below_the_threshold_leaves_where_the_project_asks(tmp_path):
    bad = chat(70, "头痛三天应当怎么办才好呢医生？", "好好好好好好好好好好好好好好好好好好好好好好好好好好好好好好好好好好")
    kept = made(tmp_path / "kept", [*distinct(30), bad], **PLAIN)
    assert kept.facts["records"] == 31
    strict = made(tmp_path / "strict", [*distinct(30), bad], quality={"drop": True, "thresholds": {"form": 0.6, "review": 0.0}}, **PLAIN)
    gone = {drop.record_id: drop for drop in drops_of(strict) if drop.step == "quality"}
    assert json.loads(gone[bad.id].content)["messages"][1]["content"].startswith("好好")
    assert sum(strict.facts["drops_by_step"]["quality"].values()) == len(gone) == 31 - strict.facts["records"]


def test_the_places_of_terms_hold_in_parts_turns_and_templates(tmp_path):
    lexicon, on = compile_lexicon([[FEVER]]), StandardizeSettings(enabled=True)

    def held(record):
        texts = {"text": record.text, **{f"messages.{n}": message.content for n, message in enumerate(record.messages)}}
        texts |= {f"metadata.{name}": value for name, value in record.metadata.items()}
        return [(item["field"], texts[item["field"]][item["start"] : item["end"]]) for item in record.metadata.get("terms", ()) if "field" in item]

    def count(record):
        return len(record.text) + sum(len(message.content) for message in record.messages)

    long, _ = standardize(row(1, text="患者发热三天。已经退了。又有发热了。", language="zh", metadata={"note": "无发热"}), on, lexicon)
    parts = [part for part, _ in fit(long, LengthSettings(over="split"), count, maximum=7)]
    assert [held(part) for part in parts] == [[("text", "发热"), note := ("metadata.note", "发热")], [note], [("text", "发热"), note]]
    turns = tuple(Message(role, text, role == "assistant") for text in ("甲发热？", "乙发热？", "丙？") for role in ("user", "assistant"))
    talk, _ = standardize(row(2, messages=(Message("system", "发热门诊"), *turns), language="zh"), on, lexicon)
    found = [held(part) for part, _ in fit(talk, LengthSettings(over="split"), count, maximum=12)]
    assert found == [[(f"messages.{n}", "发热") for n in range(3)]] * 2 + [[("messages.0", "发热")]]
    composer = Composer((template("t", "zh", ("text", "note"), "怎么看？{{text}}", "{{note}}"),), ())
    ((made_of_it, _),) = composer.compose(long)
    assert held(made_of_it) == [note] and [item["code"] for item in made_of_it.metadata["terms"]] == ["R50"] * 3


@pytest.mark.parametrize(("drop", "times"), [(False, 1), (True, 2)])
def test_the_form_of_a_text_is_measured_once_unless_it_decides_who_is_compared_at_all(tmp_path, monkeypatch, drop, times):
    seen = Counter()

    def counted(text, language):
        seen[text] += 1
        return measure(text, language)

    monkeypatch.setattr(heuristics, "measure", counted)
    dataset = made(tmp_path, distinct(30), quality={"drop": drop}, **PLAIN)
    answers = Counter(record.messages[-1].content for record in records_of(dataset))
    assert len(answers) == 30 and seen == Counter({text: count * times for text, count in answers.items()})


def test_variants_are_made_of_training_records_alone_and_stay_with_them(tmp_path):
    shares = dict.fromkeys(("synonym", "template", "colloquial", "typo", "format", "opening", "follow_up", "negative"), 1.0)
    dataset = made(tmp_path, distinct(60), augment={"enabled": True, "shares": shares}, **PLAIN)
    lines = lineage_of(dataset)
    variants = [record for record in records_of(dataset) if "augment" in record.metadata]
    assert variants
    assert dataset.facts["augment"]["made"] == len(variants)
    for record in variants:
        line, parent = lines[record.id], lines[record.parents[0]]
        assert line["split"] == parent["split"] == "train"
        assert (line["source_uri"], line["source_position"], line["cluster"]) == (parent["source_uri"], parent["source_position"], parent["cluster"])
        assert line["transforms"][-1].startswith("augment:")
    assert check_proof(dataset.path) == []


def test_questions_of_other_fields_are_refused_and_their_file_stands_in_the_register(tmp_path):
    (tmp_path / "elsewhere.txt").write_text("面包要烤多久？\nHow do I change a tyre?\n我的电话是13812345678，可以帮我订票吗？\n", encoding="utf-8")
    elsewhere = {"path": "elsewhere.txt", "licence": "CC0-1.0", "basis": "written by us"}
    shares = {**dict.fromkeys(Shares.model_fields, 0.0), "refusal": 0.5}
    settings, outside = outside_of(tmp_path, augment={"enabled": True, "shares": shares, "elsewhere": elsewhere}, **PLAIN)
    dataset = build(Given(distinct(60)), pack(), settings, ["zh", "en"], outside, workspace=Store(tmp_path / ".metier").workspace("k"))
    refused = [record for record in records_of(dataset, "train") if record.task == "refusal"]
    assert {record.messages[0].content for record in refused} == {"面包要烤多久？", "How do I change a tyre?"}
    assert all(record.messages[1].learn for record in refused)
    (entry,) = [entry for entry in dataset.facts["register"] if entry["uri"] == "elsewhere.txt"]
    assert (entry["licence"], entry["basis"], entry["rows"]) == ("CC0-1.0", "written by us", 2)
    for record in refused:
        line = lineage_of(dataset)[record.id]
        assert (line["source_uri"], line["source_digest"], line["transforms"]) == ("elsewhere.txt", entry["sha256"], ["augment:refusal"])
    assert check_proof(dataset.path) == []
    with pytest.raises(ValueError, match="refusals need both"):
        PrepareSettings.model_validate({"augment": {"enabled": True, "shares": shares}})


def test_a_mix_repeats_and_orders_training_records_and_touches_nothing_else(tmp_path):
    rows = [replace(record, task="few" if number % 10 == 0 else "many") for number, record in enumerate(distinct(80))]
    mix = {"alpha": 0.0, "epochs": 1.5, "curriculum": {"by": "length"}}
    dataset = made(tmp_path, rows, mix=mix, **PLAIN)
    plain = made(tmp_path / "plain", rows, **PLAIN)
    train, before = records_of(dataset, "train"), records_of(plain, "train")
    assert len(train) == round(1.5 * len(before)) == dataset.facts["counts"]["split"]["train"]
    assert {record.id for record in train} <= {record.id for record in before}
    tasks = [record.task for record in train]
    assert abs(tasks.count("few") - tasks.count("many")) <= 1
    assert [record.id for record in records_of(dataset, "test")] == [record.id for record in records_of(plain, "test")]
    assert len(lineage_of(dataset)) == 80


def test_folds_stand_in_the_lineage(tmp_path):
    dataset = made(tmp_path, distinct(60), split={"folds": 5}, **PLAIN)
    folds = [line["fold"] for line in lineage_of(dataset).values()]
    assert sorted(set(folds)) == [0, 1, 2, 3, 4]
    assert {line["split"] for line in lineage_of(dataset).values() if line["fold"] == 0} == {"test"}


def test_a_test_set_of_the_user_s_own_stays_whole_and_what_shares_with_it_leaves(tmp_path):
    rows = distinct(60)
    other = Source("tests/mine.jsonl", "3" * 64, "line 1", "internal")
    mine = [replace(record, id=f"{number:032d}", source=replace(other, position=f"line {number}")) for number, record in enumerate(distinct(64)[56:])]
    dataset = made(tmp_path, [*rows, *mine], split={"test": {"path": "tests/*.jsonl"}}, **PLAIN)
    assert {record.id for record in records_of(dataset, "test")} == {record.id for record in mine}
    assert not {record.source.uri for record in records_of(dataset, "train", "validation")} & {"tests/mine.jsonl"}
    assert set(dataset.facts["drops"]) <= {"shares_with_test_set", "exact_duplicate"}
    assert sum(dataset.facts["drops"].values()) == 4
    with pytest.raises(InputError, match="no row comes from other"):
        made(tmp_path / "other", rows, split={"test": {"path": "other.jsonl"}}, **PLAIN)


def test_training_rows_that_hold_a_test_item_leave_with_the_file_and_rule_named(tmp_path):
    rows = distinct(60)
    words = "The quick auditor counted every ledger twice before the morning bell rang in town"
    leaked = chat(90, f"Say it again please: {words}. Now what?", "It was said, indeed, and nobody listened to any of it.")
    # The separator inside the object is no end of a line.
    exam = json.dumps({"question": words + " and went\u2028home."}, ensure_ascii=False)
    (tmp_path / "exam.jsonl").write_text(exam + "\n" + "{" * 50_000 + "\n", encoding="utf-8")
    settings, outside = outside_of(tmp_path, decontaminate={"against": ("exam.jsonl",)}, split={"test": 0.0, "validation": 0.0}, **PLAIN)
    dataset = build(Given([*rows, leaked]), pack(), settings, ["zh", "en"], outside, workspace=Store(tmp_path / ".metier").workspace("k"))
    (gone,) = [drop for drop in drops_of(dataset) if drop.step == "decontaminate"]
    assert gone.record_id == leaked.id
    assert gone.reason.startswith("contaminated:")
    assert "exam.jsonl" in gone.reason
    assert dataset.facts["decontamination"]["rows"] == 1
    assert dataset.facts["decontamination"]["references"]["exam.jsonl"]["items"] == 2


def test_every_file_that_the_settings_name_has_to_be_there_and_is_part_of_the_identity(tmp_path):
    with pytest.raises(InputError) as caught:
        outside_of(tmp_path, decontaminate={"against": ("a.jsonl",)}, quality={"knowledge": "kb"}, tests=("tasks/items.jsonl",))
    assert all(name in str(caught.value) for name in ("prepare.decontaminate.against", "a.jsonl", "kb", "tasks/items.jsonl"))
    assert "prepare.evaluation" not in str(caught.value)
    (tmp_path / "a.jsonl").write_text("one\n", encoding="utf-8")
    before = outside_of(tmp_path, decontaminate={"against": ("a.jsonl",)})[1].digest
    (tmp_path / "a.jsonl").write_text("two\n", encoding="utf-8")
    assert outside_of(tmp_path, decontaminate={"against": ("a.jsonl",)})[1].digest != before


def test_a_policy_file_is_read_into_the_settings(tmp_path):
    settings, _ = outside_of(tmp_path, deidentify={"policy": "pipl"})
    assert settings.deidentify.policy == "pipl"
    with pytest.raises(InputError):
        outside_of(tmp_path, deidentify={"policy": "mine.yaml"})


def test_a_conversation_of_the_user_s_own_test_set_stays_and_its_copies_leave(tmp_path):
    rows = [*distinct(30), *(chat(60 + number, f"押金{number}什么时候退还？", f"第{number}天退还。", metadata={"from": "sheet"}) for number in range(8))]
    copies = [replace(item, id=f"{place:032x}", metadata={}, source=Source("exam.jsonl", "1" * 64, "", "x")) for place, item in enumerate(rows[30:])]
    copies = [replace(item, id=f"{'f' * 30}{place:02d}") if place % 2 else item for place, item in enumerate(copies)]
    dataset = made(tmp_path, [*rows, *copies], split={"test": {"path": "exam.jsonl"}, "validation": 0.1}, **PLAIN)
    assert {record.id for record in records_of(dataset, "test")} == {item.id for item in copies}
    assert not [record for record in records_of(dataset, "train", "validation") if "押金" in record.messages[0].content]
    assert {drop.reason.split(":")[0] for drop in drops_of(dataset)} <= {"repeated_conversation", "exact_duplicate", "near_duplicate", "shares_with_test_set"}


def chunk(number, title, text):
    place = {"document": f"{title}-{number}", "chunk": number, "file": f"{title}.md", "page": number, "part": None, "parts": None}
    return row(number, text=text, language="zh", metadata={**place, "title": title, "section": [title, "第一章"], "article": f"第{number}条"})


def test_two_versions_of_a_passage_stay_in_one_split_whatever_their_files_and_titles(tmp_path):
    kinds = [f"{a}{b}{c}场的负责人" for a, b, c in zip("海山河林云星雪风花月石松", "竹梅兰菊春夏秋冬东西南北", "金木水火土天海山河林云星", strict=True)]
    old = [
        chunk(place, "办法（2019年）", f"{kind}应当在{place + 20}日内把{kind[:3]}的登记材料提交给{kind[1:3]}县的主管部门。") for place, kind in enumerate(kinds)
    ]
    new = [chunk(100 + place, "二〇二五年修订的办法", item.text.replace("。", "！")) for place, item in enumerate(old)]
    dataset = made(tmp_path, [*distinct(20), *old, *new], compose={"text": "keep"}, split={"test": 0.2, "validation": 0.2}, **PLAIN)
    clusters = {}
    for record in records_of(dataset):
        if record.text:
            clusters.setdefault(record.text.replace("！", "。"), set()).add(lineage_of(dataset)[record.id]["cluster"])
    assert len(clusters) == 12
    assert {len(found) for found in clusters.values()} == {1}


def test_a_row_that_lacks_a_value_and_a_conversation_that_is_too_long_leave_without_what_identifies(tmp_path):
    lacking = Drop("d" * 32, "sources", "missing_value:grade", Source("a.jsonl", "1" * 64, "line 99", "x"), "电话13812345678")
    plan = Plan(
        settings=PrepareSettings.model_validate({"lengths": {"over": "drop"}}),
        rules=identifier_rules(pack(), DeidentifySettings()),
        quality=(),
        composer=Composer((), ()),
        languages=("zh",),
        domain="example",
        root=tmp_path,
        key=b"k" * 32,
    )
    left = json.loads(refine(plan, [lacking])[0].content)
    assert left.keys() == {"characters", "keyed_digest"} and left["characters"] == len(lacking.content)
    open_plan = replace(plan, settings=PrepareSettings.model_validate(PLAIN))
    assert refine(open_plan, [lacking]) == [lacking]
    long = drop(chat(1, "问？", "答。", time="2025-03-17"), "lengths", "too_long:9>8")
    assert "2025-03-17" not in shown_drop(plan, long).content
    assert '"2025"' in shown_drop(plan, long).content
    assert shown_drop(open_plan, long) == long


def test_a_vault_of_the_project_keeps_what_was_replaced_and_gives_it_back(tmp_path):
    phone = "13812345678"
    rows = [replace(record, subject=f"person {number % 3}") for number, record in enumerate(distinct(40))]
    asked = [replace(message, content=f"{message.content}（电话{phone}）") for message in rows[7].messages[:1]]
    rows[7] = replace(rows[7], messages=(*asked, *rows[7].messages[1:]))
    settings, outside = outside_of(tmp_path, deidentify={"vault": {"key": "key/vault.key"}})
    assert settings.deidentify.vault is None  # where a vault lies is not what a dataset is
    dataset = build(Given(rows), pack(), settings, ["zh", "en"], outside, workspace=Store(tmp_path / ".metier").workspace("k"))
    texts = "\n".join(message.content for record in records_of(dataset) for message in record.messages)
    assert phone not in texts
    (token,) = set(re.findall(r"\[PHONE_NUMBER:([a-z2-7]{16})\]", texts))
    log = []
    vault = opened_vault(*outside.vault)
    (found,) = vault.reveal([token], purpose="recall of a device", name="Li Na", record=log.append)
    assert found.value == phone
    assert any("pseudonymised, not anonymous" in note for note in dataset.facts["outside"]["notes"])
    assert check_proof(dataset.path) == []
    _, again = outside_of(tmp_path, deidentify={"vault": {"key": "key/vault.key"}})
    _, other = outside_of(tmp_path, deidentify={"vault": {"folder": "another", "key": "key/another.key"}})
    assert again.digest == outside.digest != other.digest


def test_a_vault_whose_key_is_gone_stops_the_work_before_it_begins(tmp_path):
    outside_of(tmp_path, deidentify={"vault": {"key": "vault.key"}})
    (tmp_path / "vault.key").unlink()
    with pytest.raises(PrivacyError, match="its key, is not there"):
        outside_of(tmp_path, deidentify={"vault": {"key": "vault.key"}})
    with pytest.raises(ValueError, match="tokens are those of a vault"):
        DeidentifySettings(replace="token")
