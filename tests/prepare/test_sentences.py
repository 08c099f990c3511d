"""Sentences, articles and clauses cover a text whole and end where a reader would end them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metier.prepare.sentences import articles, clauses, sentences


def cut(text):
    return [text[start:end].strip() for start, end in sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Smith met J. K. Jones. He paid $3.50.", ["Dr. Smith met J. K. Jones.", "He paid $3.50."]),
        ('"It is done." Then we left, e.g. by bus.', ['"It is done."', "Then we left, e.g. by bus."]),
        ("See Fig. 2 and No. 5. The U.S. Court agreed.", ["See Fig. 2 and No. 5.", "The U.S. Court agreed."]),
        ("Apples, pears, etc. The rest was sold.", ["Apples, pears, etc.", "The rest was sold."]),
        ("Smith v. Jones was cited. Roe v. Wade too.", ["Smith v. Jones was cited.", "Roe v. Wade too."]),
        ("1. Drink water.\n2. Rest.", ["1. Drink water.", "2. Rest."]),
        ("Wait... What? Yes!", ["Wait...", "What?", "Yes!"]),
        ("血压140.5mmHg。你好吗？很好！", ["血压140.5mmHg。", "你好吗？", "很好！"]),
        ("他说：“你好吗？”她笑了。", ["他说：“你好吗？”", "她笑了。"]),
        ("等等……然后呢？", ["等等……", "然后呢？"]),
        ("服用Vitamin C.每天一次。", ["服用Vitamin C.每天一次。"]),
        ("第一条 本法适用。\n第二条 另行规定。", ["第一条 本法适用。", "第二条 另行规定。"]),
        ("没有句号的一行\n另一行", ["没有句号的一行", "另一行"]),
    ],
)
def test_a_sentence_ends_where_a_reader_ends_it(text, expected):
    assert cut(text) == expected


@given(st.text(alphabet='aA1.!?。！？…“”"\n \u3000Dr第条、,，；x'))
def test_sentences_and_clauses_cover_a_text_whole(text):
    for stretches in (sentences(text), list(clauses(text, 0, len(text)))):
        assert "".join(text[start:end] for start, end in stretches) == text
        assert all(start < end for start, end in stretches)


def test_articles_begin_at_headings_and_cover_the_text():
    text = "中华人民共和国某法\n第一条 甲。\n第二条 乙，依照第三条处理。\n第二条之一 丙。\nArticle 4 D.\n## 标题\n末"
    found = [text[start:end] for start, end in articles(text)]
    assert "".join(found) == text
    assert [piece.split()[0] for piece in found] == ["中华人民共和国某法", "第一条", "第二条", "第二条之一", "Article", "##"]


def test_a_comma_inside_a_number_is_no_border():
    text = "Pay 1,000 dollars, then leave; done"
    assert [text[start:end] for start, end in clauses(text, 0, len(text))] == ["Pay 1,000 dollars, ", "then leave; ", "done"]
