"""Duplicates are found, verified, and never at the cost of a dose, a negation or a second answer."""

import random

import pytest

from corpus_of_prepare import chat, row
from metier.engines import LOCAL
from metier.prepare.chunks import Refined, refine_all
from metier.prepare.dedup import find_duplicates
from metier.prepare.settings import DedupSettings
from metier.progress import SILENT

LONG = "患者因反复头晕三年入院，既往有高血压病史，规律服药，血压控制尚可，近一周来头晕加重，伴有恶心，没有呕吐，无肢体麻木，为进一步诊治收入我科。"
ENGLISH = (
    "The patient came because of recurrent dizziness for three years; known hypertension, regular medication, blood pressure under control until last week."
)


def as_refined(items):
    return [Refined(item, ()) for item in items]


def found(tmp_path, records, **settings):
    rows = refine_all(records, as_refined, tmp_path, salt=str(len(list(tmp_path.iterdir()))), engine=LOCAL, progress=SILENT)
    return find_duplicates(rows, DedupSettings(**settings), SILENT)


def test_exact_duplicates_leave_and_name_the_one_that_stays(tmp_path):
    records = [chat(1, "甲？", "乙。"), chat(2, "甲？", "乙。"), chat(3, "甲？ ", "乙。\n"), chat(4, "丙？", "丁。")]
    result = found(tmp_path, records)
    kept = min(records[:3], key=lambda record: record.id)
    assert len(result.dropped) == 2
    assert set(result.dropped.values()) == {f"exact_duplicate:{kept.id}"}
    assert result.counts["exact"] == 2
    assert len({result.clusters[number] for number in range(3)}) == 1


def test_of_exact_duplicates_the_newest_stays(tmp_path):
    result = found(tmp_path, [chat(1, "甲？", "乙。", time="2023"), chat(2, "甲？", "乙。", time="2024"), chat(3, "甲？", "乙。", time="2022")])
    assert set(result.dropped) == {0, 2}


@pytest.mark.parametrize(("text", "edit"), [(LONG, ("加重", "明显")), (ENGLISH, ("recurrent", "recurring"))])
def test_near_duplicates_leave_and_the_longest_stays(tmp_path, text, edit):
    question = "怎么办？" if text is LONG else "What now?"
    result = found(tmp_path, [chat(1, text * 2, question), chat(2, text + text.replace(*edit) + "!", question), chat(3, "无关的问题", "无关的回答")])
    assert list(result.dropped) == [0]
    assert result.dropped[0].startswith("near_duplicate:0.")
    assert result.clusters[0] == result.clusters[1] != result.clusters[2]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("每次 5 mg", "每次 50 mg"),
        ("发热", "无发热"),
        ("左侧", "右侧"),
        ("5 毫克", "5 克"),
        ("takes 5 mg", "takes 50 mg"),
        ("fever", "no fever"),
        ("第三条", "第四条"),
    ],
)
def test_records_that_differ_in_dose_or_negation_are_both_kept_in_one_cluster(tmp_path, one, other):
    result = found(tmp_path, [row(1, text=f"{LONG * 3}{one}{LONG}"), row(2, text=f"{LONG * 3}{other}{LONG}")])
    assert result.dropped == {}
    assert result.counts["guarded"] == 1
    assert result.clusters[0] == result.clusters[1]


def test_short_texts_that_differ_in_dose_or_negation_are_kept(tmp_path):
    records = [row(1, text="阿司匹林 5 mg"), row(2, text="阿司匹林 50 mg"), row(3, text="发热"), row(4, text="无发热"), row(5, text="10²"), row(6, text="102")]
    assert found(tmp_path, records).dropped == {}


def test_short_texts_are_one_shingle_and_counted(tmp_path):
    result = found(tmp_path, [row(1, text="是"), row(2, text="是。"), row(3, text="yes"), row(4, text=LONG)])
    assert result.counts["short"] == 3


def test_the_same_question_with_another_answer_is_a_conflict_and_kept(tmp_path):
    result = found(tmp_path, [chat(1, LONG * 2, "是的"), chat(2, LONG * 2, "绝对可以喝酒抽烟"), chat(3, LONG * 2, "没事")])
    assert result.dropped == {}
    assert result.counts["conflicts"] == 3
    assert len(set(result.clusters.tolist())) == 1


def test_a_long_shared_passage_does_not_hide_another_label(tmp_path):
    result = found(tmp_path, [row(1, text=LONG, label="心内科"), row(2, text=LONG, label="神经科")])
    assert (result.dropped, result.counts["conflicts"]) == ({}, 1)


def test_a_field_that_differs_only_in_punctuation_is_the_same(tmp_path):
    fields = {"title": "头晕怎么办", "text": LONG}
    result = found(tmp_path, [row(1, metadata=fields), row(2, metadata={**fields, "title": "头晕，怎么办？"})])
    assert len(result.dropped) == 1


def test_a_system_message_that_all_share_makes_nothing_similar(tmp_path):
    import dataclasses

    from metier.records import Message

    records = [
        dataclasses.replace(record, messages=(Message("system", LONG * 3), *record.messages))
        for record in (chat(1, "头痛怎么办？", "休息。"), chat(2, "吃什么好？", "蔬菜。"))
    ]
    result = found(tmp_path, records)
    assert result.clusters[0] != result.clusters[1]


def test_near_duplicates_can_be_left_alone(tmp_path):
    records = [row(1, text=LONG), row(2, text=LONG + "再"), row(3, text=LONG)]
    assert len(found(tmp_path, records, near=False).dropped) == 1


def test_the_threshold_is_the_exact_similarity(tmp_path):
    records = [row(1, text=LONG), row(2, text=LONG.replace("加重", "明显"))]
    assert len(found(tmp_path, records, threshold=0.75).dropped) == 1
    assert found(tmp_path, records, threshold=0.95).dropped == {}


def test_a_chain_drops_only_what_has_a_verified_duplicate_that_stays(tmp_path):
    steps = ["复查血压", "监测体重", "注意休息", "清淡饮食", "适当运动", "戒烟限酒"]
    texts = [LONG * 2]
    for step in steps:
        texts.append(texts[-1][9:] + step * 2)
    result = found(tmp_path, [row(number, text=text) for number, text in enumerate(texts)])
    kept = [number for number in range(len(texts)) if number not in result.dropped]
    ids = {row(number, text=texts[number]).id for number in kept}
    assert all(reason.rpartition(" ")[2] in ids for reason in result.dropped.values())


def test_the_order_of_the_rows_does_not_matter(tmp_path):
    records = [row(number, text=f"{LONG}{'好' * (number % 4)}", time=str(2000 + number % 3)) for number in range(12)]
    records += [row(20 + number, text=ENGLISH.replace("three", word)) for number, word in enumerate(["three", "some", "many"])]
    shuffled = random.Random(1).sample(records, len(records))
    first, second = found(tmp_path, records), found(tmp_path, shuffled)
    assert {records[number].id: reason for number, reason in first.dropped.items()} == {
        shuffled[number].id: reason for number, reason in second.dropped.items()
    }
    assert first.counts == second.counts
