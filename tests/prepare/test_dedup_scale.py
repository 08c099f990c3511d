"""The search for duplicates out of core: shards, processes, interruption, big clusters, odd texts."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from corpus_of_prepare import chat, row
from metier.engines import Processes
from metier.errors import MetierError
from metier.prepare.dedup import DedupSettings, Records, find_duplicates

LETTERS = [chr(code) for code in range(0x5000, 0x7000)]


def passage(rng, count=120):
    return "".join(rng.choice(LETTERS) for _ in range(count))


def corpus(count, seed=0):
    """Return records with planted exact and near copies."""
    rng = random.Random(seed)
    records = [row(number, text=passage(rng)) for number in range(count)]
    for number in range(0, count, 5):
        text = records[number].text
        records.append(row(count + number, text=text if number % 2 else f"{text[:60]}呀{text[60:]}"))
    rng.shuffle(records)
    return records


def outcome(records, **values):
    found = find_duplicates(Records(records), DedupSettings(), **values)
    names = {record.id: found.cluster_name(number) for number, record in enumerate(records)}
    return {records[number].id: reason for number, reason in found.dropped.items()}, names, found.counts


def test_planted_copies_leave_and_nothing_else():
    dropped, _, counts = outcome(corpus(400))
    assert counts["exact"] == 40
    assert counts["near"] == 40
    assert len(dropped) == 80


@pytest.mark.parametrize("shard", [1, 37, 4096])
def test_neither_shards_nor_order_nor_processes_matter(shard):
    records = corpus(60)
    expected = outcome(records)
    shuffled = random.Random(5).sample(records, len(records))
    assert outcome(shuffled, shard=shard) == expected


def test_several_processes_find_the_same(tmp_path):
    records = corpus(60)
    assert outcome(records, engine=Processes(2), shard=25, folder=tmp_path) == outcome(records)


def test_numbers_have_to_be_those_of_the_rows():
    late = [(number + 1, found) for number, found in Records([row(1, text="甲")])]
    with pytest.raises(MetierError, match="row 0 has the number 1"):
        find_duplicates(late, DedupSettings())


def test_finished_files_are_used_again_and_other_rows_get_their_own(tmp_path):
    records = corpus(60)
    first = outcome(records, folder=tmp_path, shard=25)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix in (".npz", ".npy")}
    assert outcome(records, folder=tmp_path, shard=25) == first
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    changed = [*records[:-1], row(999, text=records[0].text)]
    dropped, *_ = outcome(changed, folder=tmp_path, shard=25)
    assert dropped == outcome(changed)[0] != first[0]


KILLED = """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from prepare.test_dedup_scale import Records, corpus
    from metier.prepare.dedup import DedupSettings, find_duplicates
    find_duplicates(Records(corpus(1500)), DedupSettings(), folder=Path(sys.argv[1]), shard=50)
"""


def test_a_search_that_is_killed_goes_on_and_finds_the_same(tmp_path):
    script = tmp_path / "search.py"
    script.write_text(textwrap.dedent(KILLED))
    tests = str(Path(__file__).parent.parent)
    folder = tmp_path / "work"
    process = subprocess.Popen([sys.executable, str(script), str(folder), tests], env={**os.environ, "PYTHONPATH": os.pathsep.join([tests, *sys.path])})
    deadline = time.monotonic() + 60
    while process.poll() is None and len(list(folder.glob("signed/*.run.npy"))) < 12 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("signed/*.npz")}
    assert len(kept) >= 11
    records = corpus(1500)
    resumed = outcome(records, folder=folder, shard=50)
    assert resumed[2]["exact"] == resumed[2]["near"] == 150
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert resumed == outcome(records)


def test_rows_of_one_template_take_linear_time_and_lose_only_true_copies():
    """1,200 rows of one template: 400 numbers, each three times with other punctuation. One of each number stays."""
    template = "关于本院收治病例的随访说明：患者按期复诊，生命体征平稳，继续原方案治疗，血压{}毫米汞柱，如有不适随时就诊，注意休息，清淡饮食，按时服药"
    marks = ("。", "！", "；")
    records = [row(number, text=template.format(1000 + number % 400) + marks[number // 400]) for number in range(1200)]
    found = find_duplicates(Records(records), DedupSettings(threshold=0.7))
    assert len(found.dropped) == 800
    assert found.counts["clusters"] == 1
    assert found.counts["candidates"] < 50 * len(records)
    staying = [number for number in range(1200) if number not in found.dropped]
    assert {number % 400 for number in staying} == set(range(400))
    ids = {record.id: number for number, record in enumerate(records)}
    assert all(ids[reason.rpartition(" ")[2]] % 400 == number % 400 for number, reason in found.dropped.items())


def test_many_identical_rows_are_one_node():
    records = [row(number, text="体温正常，无不适。" * 10) for number in range(5000)]
    found = find_duplicates(Records(records), DedupSettings())
    assert (found.counts["exact"], found.counts["candidates"]) == (4999, 0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("", " \n", True),
        ("。。。", "！！！", False),
        ("👍" * 40, "👎" * 40, False),
        ("治疗效果很好，患者满意，家属也表示感谢，希望继续保持👍" * 2, "治疗效果很好，患者满意，家属也表示感谢，希望继续保持👎" * 2, False),
        ("مرحبا بالعالم هذا نص طويل بما يكفي للمقارنة بين النصوص", "مرحبا بالعالم هذا نص طويل بما يكفي للمقارنة بين النصوص.", True),
        ("是", "否", False),
        ("a\x00b", "a\x00c", False),
        (
            "乙肝表面抗原定性检测结果回报：HBsAg(+)，请结合临床考虑，建议复查并随访观察",
            "乙肝表面抗原定性检测结果回报：HBsAg(-)，请结合临床考虑，建议复查并随访观察",
            False,
        ),
    ],
)
def test_odd_texts(one, other, same):
    found = find_duplicates(Records([row(1, text=one), row(2, text=other), row(3, text=passage(random.Random(1)))]), DedupSettings())
    assert len(found.dropped) == int(same)


def test_one_id_twice_is_two_rows():
    first = row(1, text=passage(random.Random(2)))
    found = find_duplicates(Records([first, first]), DedupSettings())
    assert list(found.dropped.values()) == [f"exact_duplicate:{first.id}"]


def test_a_text_of_ten_megabytes_is_compared_like_any_other():
    text = "".join(map(chr, np.random.default_rng(0).integers(0x4E00, 0x9FA0, 3_400_000).tolist()))
    found = find_duplicates(Records([row(1, text=text), row(2, text=text[:-9] + "。"), row(3, text="短文")]), DedupSettings())
    assert list(found.dropped) == [1]


GUARDED = [
    ("每次服用5mg，疗程两周", "每次服用5g，疗程两周"),
    ("剂量为0.5毫克", "剂量为0.5微克"),
    ("依照第一百三十三条规定", "依照第一百三十四条规定"),
    ("赔偿金额3万元", "赔偿金额3千元"),
    ("患者否认过敏史", "患者有过敏史"),
    ("未见异常改变", "可见异常改变"),
    ("左侧肢体乏力", "右侧肢体乏力"),
    ("饭前服用该药", "饭后服用该药"),
    ("术前完善检查", "术后完善检查"),
    ("甲方承担费用", "乙方承担费用"),
    ("每日一次用药", "每周一次用药"),
    ("the patient denies any pain", "the patient reports any pain"),
    ("tumour in the left lung", "tumour in the right lung"),
    ("take it before meals", "take it after meals"),
    ("treated with surgery", "treated without surgery"),
    ("take two tablets daily", "take three tablets daily"),
    ("a payment of $1,000", "a payment of $10,000"),
    ("the seller shall pay", "the buyer shall pay"),
    ("it isn't allowed here", "it is allowed here"),
    ("given once 10 mg/kg", "given once 10 mg/m"),
]


@pytest.mark.parametrize(("one", "other"), GUARDED)
def test_what_turns_a_statement_round_keeps_both(one, other):
    chinese, rng = ord(one[0]) > 0x3000, random.Random(3)
    rest = passage(rng, 200) if chinese else " ".join("".join(rng.choice("bcdfgklmprst") + rng.choice("aeiou") for _ in range(3)) for _ in range(60))
    texts = [f"{rest}{stop}{text}{stop}{rest[::-1]}" for text in (one, other) for stop in ["。" if chinese else ". "]]
    found = find_duplicates(Records([row(number, text=text) for number, text in enumerate(texts)]), DedupSettings())
    assert (dict(found.dropped), found.counts["guarded"]) == ({}, 1)


def test_conflicts_are_queued_with_ids_and_digests_and_no_text(tmp_path):
    question, labelled = passage(random.Random(4), 60), passage(random.Random(14))
    records = [chat(1, question, "可以服用，没有禁忌。"), chat(2, f"{question} ", "绝对不能服用！"), chat(3, passage(random.Random(6)), "好。")]
    records += [row(4, text=labelled, label="心内科"), row(5, text=labelled, label="神经科"), row(6, text=labelled, label="神经科")]
    fields = {"question": passage(random.Random(7)), "answer": "甲"}
    records += [row(7, metadata=fields), row(8, metadata={**fields, "answer": "完全是另外一种长长的说法，和上面毫无关系。" * 9})]
    found = find_duplicates(Records(records), DedupSettings(), folder=tmp_path)
    lines = [json.loads(line) for line in found.conflicts.read_text().splitlines()]
    kept = min(records[4:6], key=lambda record: record.id)
    expected = [{records[0].id, records[1].id}, {records[3].id, kept.id}, {records[6].id, records[7].id}]
    assert sorted(sorted(item["id"] for item in line["records"]) for line in lines) == sorted(sorted(ids) for ids in expected)
    assert all(len({item["question"] for item in line["records"]}) == 1 and len({item["answer"] for item in line["records"]}) == 2 for line in lines)
    assert question[:10] not in found.conflicts.read_text()
    assert found.counts["arbitrations"] == 3


def test_the_highest_score_stays_and_is_no_difference():
    text = passage(random.Random(8))
    records = [row(number, text=text + "好" * number, metadata={"quality": score}) for number, score in enumerate([0.4, 0.9, None, "0.99"])]
    found = find_duplicates(Records(records), DedupSettings(score="quality"))
    assert sorted(found.dropped) == [0, 2, 3]
    assert len(find_duplicates(Records(records), DedupSettings()).dropped) == 0


@pytest.mark.parametrize("words", [None, 5])
def test_english_is_cut_by_characters_or_words(words):
    text = "The committee reviewed the report of the district and found that the roads were repaired in time by the contractor named in the annex. " * 2
    for other in (text.replace("district", "county", 1), text.upper().replace("annex.", "annex!!")):
        assert len(find_duplicates(Records([row(1, text=text), row(2, text=other)]), DedupSettings(word_shingle=words)).dropped) == 1
