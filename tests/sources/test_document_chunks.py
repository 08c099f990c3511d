"""Chunks respect headings, articles, tables and sentences, and together they are the document."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metier.sources.documents import ChunkSettings, Document, chunks, read_document
from metier.sources.documents.rules import numeral
from metier.sources.documents.sentences import sentences

LAW = """# 登记管理办法

2020年1月1日发布

第一编 总则

第一章 一般规定

第一条 为了规范登记，制定本办法。
第二条　登记机关应当公开办事程序。

本条第二款由登记机关解释。

第二条之一 补办适用前条规定。

第二章 附则

第十条 本办法自公布之日起施行。"""

CONTRACT = """LOAN AGREEMENT

ARTICLE I DEFINITIONS

Section 1.1 Terms. "Bank day" means a day on which banks are open. No. 5 applies, e.g. in Dr. Lee's case.

Section 1.2 Reading. Section 1.1 of this Agreement governs the terms.

ARTICLE II PAYMENT

Section 2.1 Interest. The rate is 3.5 percent a year."""


def document(tmp_path, text, kind="text"):
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8", newline="")
    return read_document(path, "a.txt", kind)


def texts(doc, **values):
    return [doc.text[chunk.start : chunk.end] for chunk in chunks(doc, ChunkSettings(**values))]


def bare(text):
    return "".join(text.split())


@pytest.mark.parametrize("kind", ["text", "markdown"])
def test_every_chinese_article_is_a_chunk_with_its_label_and_section_path(tmp_path, kind):
    doc = document(tmp_path, LAW, kind)
    found = [chunk for chunk in chunks(doc, ChunkSettings(headings="path")) if chunk.block.article]
    assert [chunk.block.article for chunk in found] == ["第一条", "第二条", "第二条之一", "第十条"]
    above = ["# 登记管理办法"] if kind == "text" else ["登记管理办法"]
    paths = [list(chunk.block.section)[-2:] for chunk in found]
    assert paths == [["第一编 总则", "第一章 一般规定"]] * 3 + [["第一编 总则", "第二章 附则"]]
    assert above[0] not in [chunk.block.article for chunk in found]
    assert doc.text[found[1].start : found[1].end] == "第二条　登记机关应当公开办事程序。\n\n本条第二款由登记机关解释。"
    assert found[3].block.number[-1] == 2


def test_a_heading_stands_at_the_head_of_the_chunk_that_follows_it(tmp_path):
    found = texts(document(tmp_path, LAW, "markdown"), by="article")
    assert found[1] == "第一编 总则\n\n第一章 一般规定\n\n第一条 为了规范登记，制定本办法。"
    assert found[-1].startswith("第二章 附则\n\n第十条")


@pytest.mark.parametrize("line", ["第三条规定的情形除外。", "第三条第二款另有规定。", "第三条的决定", "第七条为新条。"])
def test_a_reference_at_the_beginning_of_a_line_is_no_article(tmp_path, line):
    doc = document(tmp_path, f"第一条 甲。\n第二条 乙。\n{line}")
    assert [block.article for block in doc.blocks if block.kind == "article"] == ["第一条", "第二条"]


def test_an_article_without_a_blank_is_known_by_its_number(tmp_path):
    doc = document(tmp_path, "第一条为了规范登记，制定本办法。\n第二条登记机关应当公开。")
    assert [block.article for block in doc.blocks] == ["第一条", "第二条"]


def test_lines_of_one_width_are_one_paragraph_and_ragged_ones_are_paragraphs(tmp_path):
    wrapped = "The borrower shall pay interest on the\nloan at a rate that the lender states\nin writing on the first day of every\nmonth."
    ragged = "1. Definitions\nTerms have the meaning that the law gives them, unless a clause says otherwise in writing.\n2. Payment\nMonthly."
    assert len(document(tmp_path, wrapped).blocks) == 1
    found = document(tmp_path, ragged).blocks
    assert [(block.kind, block.section) for block in found] == [
        ("heading", ()),
        ("paragraph", ("1. Definitions",)),
        ("heading", ()),
        ("paragraph", ("2. Payment",)),
    ]


def test_articles_with_numbered_headings_below_are_headings_themselves(tmp_path):
    doc = document(
        tmp_path,
        "ARTICLE 1 - TERMS\n1.01 Meaning\nA term means what the law says it means, and nothing that anybody else would like it to mean.\n1.02 Law\nUtah.",
    )
    paths = [chunk.block.section for chunk in chunks(doc, ChunkSettings(headings="path"))]
    assert paths == [("ARTICLE 1 - TERMS", "1.01 Meaning"), ("ARTICLE 1 - TERMS", "1.02 Law")]


def test_numbers_on_lines_in_a_row_are_a_list(tmp_path):
    doc = document(
        tmp_path, "You need:\n1. A passport\n2. A form that is filled in by hand and by nobody else than the person who travels, without help\n3. Money"
    )
    assert [block.kind for block in doc.blocks] == ["paragraph", "list", "list", "list"]


def test_an_article_may_be_marked_as_a_heading(tmp_path):
    doc = document(tmp_path, "# 办法\n\n## 第一章 总则\n\n### 第一条 目的\n\n甲。\n\n### 第二条 范围\n\n乙。", "markdown")
    found = chunks(doc, ChunkSettings(headings="path"))
    assert [(chunk.block.article, chunk.block.section) for chunk in found] == [("第一条", ("办法", "第一章 总则")), ("第二条", ("办法", "第一章 总则"))]
    assert doc.text[found[0].start : found[0].end] == "### 第一条 目的\n\n甲。"


def test_a_comment_between_title_and_articles_does_not_make_them_parts_of_one_thing(tmp_path):
    doc = document(tmp_path, "# 条例\n\n<!-- INFO -->\n\n## 第一章 总则\n\n第一条 甲。\n\n第二条 乙。", "markdown")
    found = chunks(doc, ChunkSettings())
    assert [(doc.text[chunk.start : chunk.end], chunk.part, chunk.parts) for chunk in found] == [
        *[("# 条例", 1, 1), ("## 第一章 总则\n\n第一条 甲。", 1, 1), ("第二条 乙。", 1, 1)]
    ]


def test_english_sections_stand_below_their_articles(tmp_path):
    doc = document(tmp_path, CONTRACT)
    found = chunks(doc, ChunkSettings(headings="path"))
    assert [(chunk.block.article, chunk.block.section) for chunk in found if chunk.block.article] == [
        ("Section 1.1", ("LOAN AGREEMENT", "ARTICLE I DEFINITIONS")),
        ("Section 1.2", ("LOAN AGREEMENT", "ARTICLE I DEFINITIONS")),
        ("Section 2.1", ("LOAN AGREEMENT", "ARTICLE II PAYMENT")),
    ]


def test_without_sections_the_articles_are_the_units(tmp_path):
    doc = document(tmp_path, "Article 1\n\nAll are equal.\n\nArticle 2. Freedom is granted.\n\nArticle 1 of this text is meant here.")
    assert [block.article for block in doc.blocks if block.kind == "article"] == ["Article 1", "Article 2"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("一", 1), ("十", 10), ("十二", 12), ("二十", 20), ("一百三十三", 133), ("一千二百六十", 1260), ("一千零五", 1005), ("〇", 0), ("一三三", 133)],
        *[("133", 133), ("两百", 200), ("一万零一", 10001)],
    ],
)
def test_numerals_are_read_by_units_and_by_places(text, value):
    assert numeral(text) == value


def test_sentences_end_where_readers_see_them_end():
    text = 'He said "no." Dr. Lee paid 3.5 million to U.S. firms. 他说：“好。”走了！真的？… yes'
    found = [text[start:end] for start, end in sentences(text, 0, len(text))]
    assert found == ['He said "no." ', "Dr. Lee paid 3.5 million to U.S. firms. ", "他说：“好。”", "走了！", "真的？… ", "yes"]


def test_a_long_section_is_cut_between_sentences_and_says_its_parts(tmp_path):
    doc = document(tmp_path, "# 标题\n\n" + "这是一句不长不短的话，用来填满一段文字。" * 30, "markdown")
    found = chunks(doc, ChunkSettings(characters=200))
    assert all(chunk.end - chunk.start <= 200 for chunk in found)
    assert all(doc.text[chunk.start : chunk.end].endswith("。") for chunk in found)
    assert [(chunk.part, chunk.parts) for chunk in found] == [(number, len(found)) for number in range(1, len(found) + 1)]


def test_a_sentence_that_is_longer_than_a_chunk_stays_whole(tmp_path):
    long = "Word " * 100 + "end."
    assert texts(document(tmp_path, f"Short one. {long} Short two."), characters=60) == ["Short one.", long, "Short two."]


def test_overlap_repeats_whole_sentences_within_a_section_only(tmp_path):
    sentence = "这一句话正好有十五个汉字组成。"
    doc = document(tmp_path, f"# 甲\n\n{sentence * 8}\n\n# 乙\n\n{sentence * 2}", "markdown")
    found = chunks(doc, ChunkSettings(characters=65, overlap=20, by="heading"))
    assert [chunk.repeated for chunk in found] == [0, 15, 0]
    assert doc.text[found[1].start : found[1].end].startswith(sentence)
    assert doc.text[found[-1].start : found[-1].end] == f"# 乙\n\n{sentence * 2}"


def test_a_table_is_cut_between_rows_only(tmp_path):
    rows = "\n".join(f"| item {number} | {number * 100} |" for number in range(20))
    doc = document(tmp_path, f"Before.\n\n| name | price |\n|---|---|\n{rows}\n\nAfter.", "markdown")
    for text in texts(doc, characters=60):
        assert all(line.startswith("|") == line.endswith("|") for line in text.splitlines())


def test_a_table_that_fits_stays_in_one_chunk(tmp_path):
    table = "| name | price |\n|---|---|\n| a | 1 |\n| b | 2 |"
    doc = document(tmp_path, f"{'A sentence before the table. ' * 6}\n\n{table}", "markdown")
    assert texts(doc, characters=190)[-1] == table


def test_rows_of_a_table_become_records_with_the_header_s_names(tmp_path):
    doc = document(tmp_path, "前文。\n\n| 药品 | 剂量 |\n|---|---|\n| 甲 | 5 mg |\n| 乙 | 10 mg |\n\n后文。", "markdown")
    found = chunks(doc, ChunkSettings(tables="rows"))
    assert [dict(chunk.row) for chunk in found if chunk.row] == [{"药品": "甲", "剂量": "5 mg"}, {"药品": "乙", "剂量": "10 mg"}]
    assert texts(doc, tables="rows") == ["前文。", "| 甲 | 5 mg |", "| 乙 | 10 mg |", "后文。"]


def test_tables_can_leave_with_a_reason(tmp_path):
    doc = document(tmp_path, "a.\n\n| x | y |\n|---|---|\n| 1 | 2 |", "markdown")
    assert [chunk.dropped for chunk in chunks(doc, ChunkSettings(tables="drop"))] == ["", "table_dropped"]


def test_a_document_can_stay_whole(tmp_path):
    assert texts(document(tmp_path, LAW, "markdown"), by="none", characters=50) == [LAW]


def test_overlap_as_long_as_a_chunk_is_refused():
    with pytest.raises(ValueError, match="smaller than characters"):
        ChunkSettings(characters=100, overlap=100)


PIECES = [
    *("第一条 甲乙丙。丁戊。", "第三章 总则", "# A heading", "Plain words. More words! And 3.5 of them", "- item one\n- item two", "Section 4. Title"),
    *("| a | b |\n|---|---|\n| 1 | 2 |", "\u3000\u3000缩进的一段话？", "😀 emoji. שלום עולם.", "```\ncode # no heading\n```", "...", "<!-- note -->"),
    *("\u200b", "表一\t2\t3\n表二\t4\t5"),
]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES) | st.text(max_size=80).map(lambda text: text.replace("\0", "").replace("\r", "")), max_size=12),
    st.sampled_from(["text", "markdown"]),
    st.integers(50, 300),
    st.sampled_from(["auto", "heading", "article", "paragraph", "none"]),
    st.sampled_from(["\n", "\n\n"]),
)
def test_without_overlap_the_chunks_are_the_document_exactly_once(tmp_path_factory, pieces, kind, characters, by, gap):
    text = gap.join(pieces).encode("utf-8", "ignore").decode()
    doc = document(tmp_path_factory.mktemp("d"), text, kind)
    found = chunks(doc, ChunkSettings(characters=characters, by=by))
    places = sorted([(chunk.start, chunk.end) for chunk in found] + [(item.start, item.end) for item in doc.left_out])
    assert all(before[1] <= after[0] for before, after in pairwise(places))
    assert [chunk.start for chunk in found] == sorted(chunk.start for chunk in found)
    assert bare("".join(doc.text[start:end] for start, end in places)) == bare(doc.text)
    assert isinstance(doc, Document)
