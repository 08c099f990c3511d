"""The knowledge base: found passages, support, contradicted numbers, sources that are or are not there."""

import pytest

from corpus_of_prepare import chat
from metier.errors import InputError
from metier.prepare.quality import KnowledgeBase, Means, QualitySettings, assess, passages_of, read_passages
from metier.prepare.quality.facts import check_facts, quantities
from metier.prepare.quality.terms import terms

LAW = """# 养蜂管理条例

第一条 为了规范养蜂活动，制定本条例。

第二条 养蜂人应当在转场前三十日内向县级主管部门申请登记，登记有效期为五年。

第三条 蜂箱与居民区的距离不得少于二百米，违反的处五百元罚款。
"""
GUIDE = "Feed the colony 500 grams of sugar in autumn. A hive weighs about 30 kg before winter. Queens live for 3 years."


@pytest.fixture
def knowledge():
    return KnowledgeBase([*passages_of("law.md", LAW), *passages_of("guide.txt", GUIDE)])


def check(knowledge, answer, question="", covered=0.35):
    return check_facts(question, answer, knowledge, covered=covered)


def test_documents_become_articles_and_long_ones_whole_sentences():
    found = list(passages_of("law.md", LAW))
    assert [passage.title for passage in found] == ["养蜂管理条例"] * 4
    assert found[2].text.startswith("第二条 养蜂人")
    pieces = list(passages_of("a.txt", "甲乙丙丁。" * 100, size=50))
    assert "".join(piece.text for piece in pieces) == "甲乙丙丁。" * 100
    assert max(len(piece.text) for piece in pieces) <= 50


def test_the_best_passage_is_found_in_both_languages(knowledge):
    texts = [passage.text for passage in knowledge.passages]
    assert texts[knowledge.search(terms("转场要提前多久登记"), 1)[0]].startswith("第二条")
    assert texts[knowledge.search(terms("How long do queens live?"), 1)[0]] == GUIDE
    assert knowledge.search(terms("zzz qqq"), 3) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("三十日内，罚款五百元", {"日": {30.0: "三十日"}, "元": {500.0: "五百元"}}),
        ("30 days, 1,500 yuan and 2.5 mg", {"日": {30.0: "30 days"}, "元": {1500.0: "1,500 yuan"}, "mg": {2.5: "2.5 mg"}}),
        ("一万二千三百元", {"元": {12300.0: "一万二千三百元"}}),
        ("二〇二一年", {"年": {2021.0: "二〇二一年"}}),
        ("一般来说，第三条", {}),
        ("30daysx", {}),
    ],
)
def test_numbers_are_read_with_their_unit_in_digits_and_numerals(text, expected):
    assert quantities(text) == expected


def test_a_supported_answer_scores_high_and_says_where(knowledge):
    found = check(knowledge, "养蜂人应当在转场前30日内向县级主管部门申请登记。")
    assert found.value == 1
    assert found.contradicted == ()
    assert found.passages[0] == "law.md"
    assert check(knowledge, "Feed the colony 500 grams of sugar in autumn.").value == 1


def test_a_number_that_the_passages_contradict_is_named(knowledge):
    found = check(knowledge, "养蜂人应当在转场前四十五日内向县级主管部门申请登记。")
    assert found.contradicted == ("四十五日",)
    assert found.value == pytest.approx(0.4)
    english = check(knowledge, "Feed the colony 900 grams of sugar in autumn.")
    assert english.contradicted == ("900 grams",)


def test_what_the_base_says_nothing_about_is_not_measured(knowledge):
    found = check(knowledge, "明天下午的电影票已经全部卖完了，只能改看晚场。")
    assert found.value is None
    assert found.support < 0.35


def test_cited_sources_are_looked_up(knowledge):
    there = check(knowledge, "根据《中华人民共和国养蜂管理条例》第二条，养蜂人应当在转场前三十日内申请登记。")
    assert (there.sources_found, there.sources_missing) == (("《中华人民共和国养蜂管理条例》第二条",), ())
    wrong = check(knowledge, "根据《养蜂管理条例》第九条，养蜂人应当在转场前三十日内申请登记。")
    assert wrong.sources_missing == ("《养蜂管理条例》第九条",)
    assert wrong.value == pytest.approx(min(1.0, wrong.support / 0.7) / 2)
    assert check(knowledge, "见《飞行管理办法》。").sources_missing == ("《飞行管理办法》",)


def test_facts_reach_the_verdict_with_their_reason(knowledge):
    records = [chat(1, "转场前多久登记？", "养蜂人应当在转场前四十五日内向县级主管部门申请登记。", language="zh")]
    (found,) = assess(records, QualitySettings(encoder="none"), Means(knowledge=knowledge))
    assert found.dimensions["facts"].value == pytest.approx(0.4)
    assert "the best passages give another number than 四十五日" in " ".join(found.reasons)


def test_a_folder_is_read_and_every_fault_of_it_is_said(tmp_path):
    (tmp_path / "law.md").write_text(LAW, encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text('{"text": "甲乙丙丁。", "title": "题"}\n', encoding="utf-8")
    found = read_passages(tmp_path)
    assert {passage.title for passage in found} == {"养蜂管理条例", "题"}
    assert read_passages(tmp_path / "law.md")[0].uri.endswith("law.md")
    (tmp_path / "bad.jsonl").write_text("{}\n", encoding="utf-8")
    (tmp_path / "old.txt").write_bytes("蜂".encode("gb18030"))
    with pytest.raises(InputError, match=r"bad.jsonl:1[\s\S]*old.txt"):
        read_passages(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_passages(tmp_path / "nowhere.txt")
    with pytest.raises(InputError, match="holds no text"):
        read_passages(tmp_path / "empty") if (tmp_path / "empty").mkdir() is None else None


def test_an_empty_base_is_refused():
    with pytest.raises(InputError, match="no passage"):
        KnowledgeBase([])
