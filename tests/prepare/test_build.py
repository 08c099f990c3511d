"""A dataset as a whole: what is in it, what left and why, that it resumes, and that nothing leaks."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from corpus_of_prepare import Given, chat, distinct, made, pack, row, template
from metier.engines import Processes
from metier.errors import InputError, MetierError
from metier.packs.spec import Examples, Identifier, QualityRule
from metier.prepare import PrepareSettings, build, dropped, examples, summary
from metier.prepare.check import check_disjoint
from metier.records import Drop, Source
from metier.registry.impact import _dropped
from metier.shards import SPLITS, dataset_records, read_drops, write_records, write_rows
from metier.store import Store

ANY = Examples(match=("x",), reject=("y",))


def everything(dataset):
    return [record for split in SPLITS for record in dataset_records(dataset, split)]


def text_of(dataset):
    return json.dumps(
        [[[message.content for message in record.messages], dict(record.metadata), record.label] for record in everything(dataset)], ensure_ascii=False
    )


def drops_of(dataset):
    return list(read_drops(dataset.file("drops.parquet")))


def lineage_of(dataset):
    return pq.read_table(dataset.file("lineage.parquet")).to_pylist()


def explode(text):
    raise ZeroDivisionError(text)


@pytest.fixture
def dataset(tmp_path):
    return made(tmp_path, distinct(40))


def test_a_dataset_holds_every_record_once_in_three_splits(dataset):
    assert dataset.kind == "dataset"
    assert dataset.facts["counts"]["split"] == {"test": 4, "train": 32, "validation": 4}
    assert dataset.facts["counts"]["language"] == {"en": 20, "zh": 20}
    assert len({record.id for record in everything(dataset)}) == 40
    assert {record.task for record in everything(dataset)} == {"chat"}
    assert {record.domain for record in everything(dataset)} == {"example"}


def test_the_same_input_gives_the_same_bytes_whatever_the_engine(tmp_path, dataset):
    workspace = Store(tmp_path / ".metier").workspace("other")
    again = build(Given(distinct(40)), pack(), PrepareSettings(), ["zh", "en"], workspace=workspace, engine=Processes(2))
    assert again.digest == dataset.digest


def test_the_order_of_the_sources_changes_no_split(tmp_path, dataset):
    shuffled = random.Random(2).sample(distinct(40), 40)
    again = made(tmp_path, shuffled, key="other")
    where = {name: {record.id for record in dataset_records(dataset, name)} for name in SPLITS}
    assert {name: {record.id for record in dataset_records(again, name)} for name in SPLITS} == where


def test_lineage_leads_from_every_record_to_its_source(dataset):
    lines = {line["record_id"]: line for line in lineage_of(dataset)}
    for split in SPLITS:
        for record in dataset_records(dataset, split):
            line = lines[record.id]
            assert line["split"] == split
            assert (line["source_uri"], line["source_position"], line["source_digest"]) == ("a.jsonl", record.source.position, "1" * 64)


def test_the_check_finds_nothing_shared(dataset):
    assert {item["shared"] for item in dataset.facts["disjoint"].values()} == {0}
    assert dataset.facts["disjoint"]["record"]["distinct"] == 40


def test_the_check_refuses_splits_that_share_a_record_text_subject_or_cluster(tmp_path):
    columns = {"record_id": "string", "cluster": "string"}
    cases = {
        "subjects": [chat(1, "a", "b", subject="s"), chat(2, "c", "d", subject="s")],
        "groups": [chat(1, "a", "b", group="g"), chat(2, "c", "d", group="g")],
        "texts": [chat(1, "a", "b"), chat(2, "a", "b")],
        "clusters": [chat(1, "a", "b"), chat(2, "c", "d")],
        "prompts": [chat(1, "a", "b"), chat(2, "a", "c")],
    }
    for name, (one, other) in cases.items():
        folder = tmp_path / name
        folder.mkdir()
        write_records(folder / "part-train-00000.parquet", [one])
        write_records(folder / "part-test-00000.parquet", [other])
        cluster = ["k", "k"] if name == "clusters" else ["k", "l"]
        write_rows(folder / "lineage.parquet", [{"record_id": item.id, "cluster": key} for item, key in zip((one, other), cluster, strict=True)], columns)
        with pytest.raises(MetierError, match=f"share 1 {name}"):
            check_disjoint(folder, by=("subject", "group", "prompt") if name == "prompts" else ("subject", "group"))


# Templates

QA = template("qa", "zh", ("ask", "answer"), "{{ask}}", "{{answer}}")
TRIAGE = template("triage", "zh", ("ask", "department"), "科室？{{ask}}", "{{department}}", label="department")
ENGLISH = template("qa-en", "en", ("ask", "answer"), "{{ask}}", "{{answer}}", task="qa")


def fields(count, **extra):
    return [
        row(number, metadata={"ask": record.messages[0].content, "answer": record.messages[1].content, "department": f"d{number % 3}", **extra})
        for number, record in enumerate(distinct(count))
    ]


def test_every_template_that_fits_makes_a_record_and_all_of_a_row_stay_together(tmp_path):
    dataset = made(tmp_path, fields(40), rules=pack(templates=(QA, TRIAGE, ENGLISH)))
    assert dataset.facts["counts"]["task"] == {"qa": 40, "triage": 20}
    splits = {}
    for line in lineage_of(dataset):
        (parent,) = line["parents"]
        splits.setdefault(parent, set()).add(line["split"])
        assert line["transforms"][-1].startswith("template:")
    assert len(splits) == 40
    assert {len(found) for found in splits.values()} == {1}
    triage = [record for record in everything(dataset) if record.task == "triage"]
    assert {record.label for record in triage} <= {"d0", "d1", "d2"}
    assert all(record.messages[1].content == record.label and record.messages[1].learn for record in triage)
    assert all(record.group == record.parents[0] for record in triage)


def test_rows_that_ask_the_same_with_other_words_of_the_row_stay_in_one_split(tmp_path):
    topics = [f"topic{number}" for number in range(30)]
    records = [row(line, metadata={"topic": topics[line % 30], "other": f"{line}" * 9, "reply": f"reply {line} {'x' * line}"}) for line in range(90)]
    rules = pack(templates=(template("about", "en", ("topic", "reply"), "What of {{ topic }}?", "{{ reply }}"),))
    tied = made(tmp_path / "tied", records, rules=rules, dedup={"near": False})
    assert tied.facts["disjoint"]["prompt"] == {"distinct": 30, "shared": 0}
    loose = made(tmp_path / "loose", records, rules=rules, dedup={"near": False}, split={"by": ("subject", "group")})
    assert loose.facts["disjoint"]["prompt"]["shared"] > 0


def test_a_source_may_name_its_templates(tmp_path):
    workspace = Store(tmp_path).workspace("k")
    rules = pack(templates=(QA, TRIAGE, ENGLISH))
    dataset = build(Given(fields(40), templates=("triage",)), rules, PrepareSettings(), ["zh", "en"], workspace=workspace)
    assert dataset.facts["counts"]["task"] == {"triage": 20}
    assert dataset.facts["drops"] == {"no_template_fits": 20}
    with pytest.raises(InputError, match="did you mean 'triage'"):
        build(Given(fields(4), templates=("triag",)), rules, PrepareSettings(), ["zh"], workspace=workspace)


def test_plain_texts_stay_where_the_project_keeps_them(tmp_path):
    rows = [row(number, text=record.messages[0].content + record.messages[1].content, label=f"l{number % 2}") for number, record in enumerate(distinct(30))]
    dataset = made(tmp_path, rows, compose={"text": "keep"}, split={"by": ()}, deidentify={"enabled": False})
    assert dataset.facts["counts"]["task"] == {"text": 30}
    assert sorted(record.text for record in everything(dataset)) == sorted(item.text for item in rows)
    assert {line["transforms"][-1] for line in lineage_of(dataset)} == {"as-is"}
    assert dataset.facts["disjoint"]["text"] == {"distinct": 30, "shared": 0}


def test_two_rows_that_give_the_same_conversation_give_it_once(tmp_path):
    rows = [*fields(20), row(99, metadata={**fields(20)[3].metadata, "answer": "完全不同的另外一个回答而已"})]
    dataset = made(tmp_path, rows, rules=pack(templates=(TRIAGE,)))
    assert dataset.facts["drops"]["repeated_conversation"] == 1
    assert dataset.facts["counts"]["task"] == {"triage": 10}


# What leaves


def test_drops_keep_their_content_and_reason(tmp_path):
    raw = '{"messages": [broken'
    bad = Drop("b" * 32, "sources", "malformed_json:x", Source("a.jsonl", "1" * 64, "line 9", "internal"), raw)
    short = QualityRule(name="too_short", minimum_characters=10, examples=ANY)
    spam = QualityRule(name="spam", pattern="加微信", examples=ANY)
    records = [
        bad,
        *distinct(30),
        chat(90, "嗯", "好"),
        chat(91, "怎么联系您比较方便呢？", "请加微信联系我们客服。"),
        chat(92, "Кто это такой?", "Это мой друг Иван"),
    ]
    dataset = made(tmp_path, records, rules=pack(quality=(short, spam)))
    assert dataset.facts["drops"] == {"malformed_json": 1, "other_language": 1, "spam": 1, "too_short": 1}
    found = {drop.reason: drop for drop in drops_of(dataset)}
    assert json.loads(found["malformed_json:x"].content).keys() == {"characters", "keyed_digest"}
    assert found["malformed_json:x"].source.position == "line 9"
    assert json.loads(found["too_short:3<10"].content)["messages"][0]["content"] == "嗯"
    assert found["other_language:und"].step == "language"
    assert dropped(dataset, reason="spam")["drops"][0]["source"] == "a.jsonl, line 91"


def test_a_malformed_line_stands_in_the_ledger_by_its_place_and_not_with_its_text(tmp_path):
    raw = '{"messages": [broken, 电话13812345678'
    bad = Drop("b" * 32, "sources", "malformed_json:x", Source("a.jsonl", "1" * 64, "line 9", "internal"), raw)
    dataset = made(tmp_path, [bad, *distinct(10)])
    (drop,) = drops_of(dataset)
    left = json.loads(drop.content)
    assert (left["characters"], len(left["keyed_digest"]), drop.source.position) == (len(raw), 32, "line 9")
    assert "13812345678" not in text_of(dataset)
    assert all("13812345678" not in path.read_text(encoding="utf-8") for path in (tmp_path / ".metier" / "work").rglob("*.jsonl"))
    (kept,) = drops_of(made(tmp_path, [bad, *distinct(10)], deidentify={"enabled": False}, key="other"))
    assert kept.content == raw


def test_a_language_that_the_project_does_not_name_leaves(tmp_path):
    dataset = made(tmp_path, distinct(40), languages=("zh",))
    assert dataset.facts["counts"]["language"] == {"zh": 20}
    assert dataset.facts["drops"] == {"other_language": 20}


def test_prescriptions_that_differ_in_the_dose_are_both_kept_and_never_split(tmp_path):
    long = "患者服用阿司匹林治疗冠心病，每天早晨餐后口服，已连续三个月，今日复诊，请问这样的剂量是否合适，需要注意哪些方面，"
    pairs = [chat(100 + number, f"{long}每次 {dose}", "请遵医嘱按时服药并定期复查。") for number, dose in enumerate(("5 mg", "50 mg"))]
    dataset = made(tmp_path, [*distinct(30), *pairs])
    where = {record.id: split for split in SPLITS for record in dataset_records(dataset, split)}
    assert where[pairs[0].id] == where[pairs[1].id]
    assert dataset.facts["duplicates"]["guarded"] == 1


def test_nothing_left_says_why(tmp_path):
    with pytest.raises(InputError, match="3 no_template_fits"):
        made(tmp_path, [row(number, text=text) for number, text in enumerate(("一段文字", "另一段不同的话", "第三个句子在此"))])
    with pytest.raises(InputError, match="hold no rows"):
        made(tmp_path, [], key="other")


def test_too_few_rows_say_how_many_are_needed(tmp_path):
    with pytest.raises(InputError, match="at least 3"):
        made(tmp_path, distinct(2))


# Personal data

BADGE = Identifier(entity="BADGE", pattern=r"(?<![0-9A-Z])BDG[0-9]{6}(?![0-9])", examples=Examples(match=("BDG123456",), reject=("BDG12",)))


def test_identifiers_are_replaced_everywhere_and_keys_become_pseudonyms(tmp_path):
    secret = "BDG482915"
    records = [
        *distinct(30),
        *(
            chat(
                50 + n,
                f"{secret}的{n}号问题是{'甲乙丙'[n] * 8}？",
                f"已记录{secret}。{'丁戊己'[n] * 9}",
                subject=secret,
                group=secret,
                label=secret,
                metadata={"note": [secret]},
            )
            for n in range(3)
        ),
    ]
    dataset = made(tmp_path, records, rules=pack(identifiers=(BADGE,)))
    assert secret not in text_of(dataset)
    for name in dataset.files:
        data = dataset.file(name)
        shown = str(pq.read_table(data).to_pylist()) if data.suffix == ".parquet" else data.read_text(encoding="utf-8")
        assert secret not in shown
    assert secret not in json.dumps(dict(dataset.facts), default=str)
    ours = [record for record in everything(dataset) if record.subject]
    assert len(ours) == 3
    assert len({record.subject for record in ours}) == 1
    assert len(ours[0].subject) == 32
    assert ours[0].subject != ours[0].group
    assert dataset.facts["identifiers"]["BADGE"] == 12
    assert len({line["split"] for line in lineage_of(dataset) if line["subject"]}) == 1


def test_the_replacement_can_be_chosen(tmp_path):
    records = [*distinct(10), chat(50, "BDG482915是谁的证件号码？", "请到前台询问一下。")]
    assert "[BADGE]" in text_of(made(tmp_path, records, rules=pack(identifiers=(BADGE,)), deidentify={"replace": "mask"}))
    assert "BDG482915" in text_of(made(tmp_path, records, rules=pack(identifiers=(BADGE,)), deidentify={"enabled": False}, key="other"))


def test_only_the_year_of_a_time_is_left(tmp_path):
    records = [chat(number, *(message.content for message in record.messages), time="2024-03-01") for number, record in enumerate(distinct(10))]
    assert {record.time for record in everything(made(tmp_path, records))} == {"2024"}


def test_a_row_whose_de_identification_fails_is_quarantined_without_its_text(tmp_path, caplog):
    rule = BADGE.model_copy(update={"validator": "explode"})
    secret = "BDG482915"
    dataset = made(tmp_path, [*distinct(10), chat(50, f"{secret}是谁？", "不清楚这件事。")], rules=pack(identifiers=(rule,), validators={"explode": explode}))
    (drop,) = drops_of(dataset)
    assert drop.reason == "deidentify_failed:ZeroDivisionError"
    assert (drop.content, drop.source.position) == ("", "line 50")
    assert secret not in caplog.text
    assert secret not in text_of(dataset)
    assert all(secret not in path.read_text(encoding="utf-8") for path in (tmp_path / ".metier" / "work").rglob("*.jsonl"))


def test_a_quarantined_row_is_found_by_the_person_it_is_about(tmp_path):
    rule = BADGE.model_copy(update={"validator": "explode"})
    bad = [chat(50 + n, f"BDG48291{n}是谁？", "不清楚这件事。", subject="张三", group="g") for n in range(2)]
    dataset = made(
        tmp_path,
        [*distinct(10), *bad, chat(60, "另一个问题？", "另一个回答。", subject="张三")],
        rules=pack(identifiers=(rule,), validators={"explode": explode}),
    )
    (pseudonym,) = {record.subject for record in everything(dataset) if record.subject}
    assert [json.loads(drop.content)["subject"] for drop in drops_of(dataset)] == [pseudonym] * 2
    assert all(json.loads(drop.content).keys() == {"group", "subject"} for drop in drops_of(dataset))
    assert _dropped(dataset, "subject", pseudonym) == 2
    assert "张三" not in text_of(dataset)


# Card and inspection


def test_the_card_says_counts_sources_steps_and_limits(dataset):
    card = dataset.file("card.md").read_text(encoding="utf-8")
    for part in ("40 records", "| train | 32 |", "| a.jsonl | 40 |", "not stated", "threshold: 0.8", "Known limits", "| cluster | 40 | 0 |"):
        assert part in card


def test_inspection_gives_plain_data(dataset):
    found = summary(dataset)
    assert json.loads(json.dumps(found)) == found
    lengths = sorted(sum(len(message.content) for message in record.messages) for record in dataset_records(dataset, "train"))
    assert found["characters"]["train"]["0%"] == lengths[0]
    assert found["characters"]["train"]["100%"] == lengths[-1]
    shown = examples(dataset, "train", count=2, seed=1)
    assert shown == examples(dataset, "train", count=2, seed=1)
    assert len(shown) == 2
    assert shown[0]["messages"][1]["role"] == "assistant"


# Interruption

CHILD = """
import sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from corpus_of_prepare import Given, distinct, pack
from metier.prepare import PrepareSettings, build
from metier.prepare import chunks
from metier.store import Store
chunks.CHUNK = 4
class Slow(Given):
    def __iter__(self):
        for record in self.records:
            time.sleep(0.004)
            yield record
print("ready", flush=True)
print(build(Slow(distinct(60)), pack(), PrepareSettings(), ["zh", "en"], workspace=Store(Path(sys.argv[1])).workspace("k")).digest)
"""


def child(root: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(root), str(Path(__file__).parents[1])]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)


def test_killed_at_random_points_and_run_again_the_bytes_are_the_same(tmp_path):
    whole = child(tmp_path / "whole")
    expected = whole.communicate()[0].split()[1]
    secret = tmp_path / "killed" / "keys" / "surrogates"
    secret.parent.mkdir(parents=True)
    secret.write_bytes((tmp_path / "whole" / "keys" / "surrogates").read_bytes())
    rng = random.Random(4)
    survived = []
    for _ in range(3):
        running = child(tmp_path / "killed")
        running.stdout.readline()
        time.sleep(rng.uniform(0.02, 0.3))
        running.send_signal(signal.SIGKILL)
        running.wait()
        running.stdout.close()
        survived.append(len(list((tmp_path / "killed" / "work").rglob("chunks/[0-9]*.jsonl"))))
    assert survived == sorted(survived)
    final = child(tmp_path / "killed")
    assert final.communicate()[0].split()[1] == expected


def test_finished_chunks_are_not_computed_again(tmp_path):
    made(tmp_path, distinct(10))
    (chunk,) = (tmp_path / ".metier").rglob("chunks/*.jsonl")
    before = chunk.stat().st_mtime_ns
    made(tmp_path, distinct(10))
    assert chunk.stat().st_mtime_ns == before


def test_a_file_that_two_sources_name_counts_once(tmp_path):
    dataset = made(tmp_path, [*distinct(20), *distinct(20)])
    assert (dataset.facts["records"], dataset.facts["drops"]) == (20, {"exact_duplicate": 20})
    assert len(lineage_of(dataset)) == 20
