"""Each format of a document gives its words in their order, with headings, tables and pages, and says what it passes over."""

import io
import random
import zipfile
import zlib

import docx
import pytest
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen import canvas
from reportlab.platypus import SimpleDocTemplate, Table, TableStyle

from metier.errors import SourceError
from metier.records import Drop
from metier.sources import SourceSettings, read
from metier.sources.documents import read_document
from metier.sources.documents.charset import declared_inside
from metier.sources.documents.limits import check_archive, check_streams

pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
FONT = "STSong-Light"


def blocks(doc):
    return [(block.kind, doc.text[block.start : block.end]) for block in doc.blocks]


def put(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def fault_of(call):
    with pytest.raises(SourceError) as caught:
        call()
    (fault,) = caught.value.faults
    return fault


@pytest.mark.parametrize("kind", ["pdf", "docx"])
@pytest.mark.parametrize("seed", range(8))
def test_damage_anywhere_in_a_file_is_an_error_of_ours_or_none(tmp_path, kind, seed):
    made = pdf(tmp_path, lambda page: lines(page, ["text"] * 9)) if kind == "pdf" else word(tmp_path, lambda document: document.add_heading("x"))
    data, chance = bytearray(made.read_bytes()), random.Random(seed)
    for _ in range(1 + seed * 4):
        data[chance.randrange(len(data))] = chance.randrange(256)
    try:
        read_document(put(tmp_path, f"b.{kind}", bytes(data[: len(data) - seed % 3 * 100])), "b", kind)
    except SourceError as error:
        assert all(fault.remedy for fault in error.faults)


# Markdown and HTML


def test_markdown_knows_headings_lists_tables_code_and_what_is_no_text(tmp_path):
    text = (
        "---\ntitle: x\n---\n# 标题\n\nUnder\n=====\n\n- a\n- b\n\n<!-- left\nout -->\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n"
        "```\n# no heading\n```\n\n#no heading\n"
    )
    doc = read_document(put(tmp_path, "a.md", text), "a.md", "markdown")
    assert blocks(doc) == [
        ("heading", "# 标题"),
        ("heading", "Under\n====="),
        ("list", "- a\n- b"),
        ("table", "| x | y |\n|---|---|\n| 1 | 2 |"),
        ("paragraph", "```\n# no heading\n```"),
        ("paragraph", "#no heading"),
    ]
    assert doc.title == "标题"
    assert [(item.reason, text[item.start : item.end]) for item in doc.left_out] == [("settings", "---\ntitle: x\n---"), ("comment", "<!-- left\nout -->")]


def html(tmp_path, body):
    return read_document(put(tmp_path, "a.html", body), "a.html", "html")


def test_html_gives_what_a_reader_sees(tmp_path):
    doc = html(
        tmp_path,
        "<head><title> 页 面 </title><style>p{}</style></head><body><script>alert(1)</script><nav>menu</nav><h1>一、<b>标题</b></h1>"
        "<p>One <i>two</i>\n three.<br>Four.</p><div hidden>secret</div><p style='display: none'>secret</p><p aria-hidden=true>secret</p>"
        "<ul><li>a<ol><li>b<li>c</ol></ul><pre>x  y\n z</pre>loose</body>",
    )
    assert doc.title == "页 面"
    assert blocks(doc) == [
        ("heading", "一、标题"),
        ("paragraph", "One two three.\nFour."),
        ("list", "- a"),
        ("list", "1. b"),
        ("list", "2. c"),
        ("paragraph", "x  y\n z"),
        ("paragraph", "loose"),
    ]
    assert "secret" not in doc.text
    assert {name: count for name, count in doc.counts.items() if count} == {"script": 1, "nav": 1, "hidden": 3}


def test_merged_cells_of_html_stand_in_every_row_they_cover(tmp_path):
    doc = html(tmp_path, "<table><tr><th>a<th>b<th>c</tr><tr><td rowspan=2>甲<td>1<td>x|y</tr><tr><td colspan=2>2</tr></table>")
    assert doc.text == "| a | b | c |\n| 甲 | 1 | x\\|y |\n| 甲 | 2 |  |"


def test_a_table_around_tables_is_layout(tmp_path):
    doc = html(tmp_path, "<table><tr><td><p>Left.</p></td><td><table><tr><td>1</td><td>2</td></tr></table></td></tr></table>")
    assert blocks(doc) == [("paragraph", "Left."), ("table", "| 1 | 2 |")]


def test_html_that_is_nested_without_end_is_refused(tmp_path):
    assert "nested more than 200 deep" in fault_of(lambda: html(tmp_path, "<div>" * 5000 + "x")).what


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b'<html><meta charset="GB2312">', "gb18030"),
        (b'<meta http-equiv="Content-Type" content="text/html; charset=big5">', "big5"),
        (b'<?xml version="1.0" encoding="ISO-8859-1"?>', "cp1252"),
        (b'<meta charset="utf-16">', None),
        (b'<meta charset="no-such-thing">', None),
        (b'\xef\xbb\xbf<meta charset="gbk">', None),
        (b"<p>", None),
    ],
)
def test_the_encoding_that_a_page_declares_is_what_the_web_means_by_it(start, name):
    assert declared_inside(start) == name


# XML


def test_xml_as_prose_has_titles_paragraphs_lists_and_tables(tmp_path):
    doc = read_document(
        put(
            tmp_path,
            "a.xml",
            '<d xmlns:j="u"><j:title>文 件</j:title><sec><title>One</title><p>A <b>bold</b> word &amp; more.</p><list><item>x</item></list>'
            "<table><tr><td>1</td><td>2</td></tr></table></sec></d>",
        ),
        "a.xml",
        "xml-prose",
    )
    assert doc.title == "文 件"
    assert blocks(doc) == [
        ("heading", "文 件"),
        ("heading", "One"),
        ("paragraph", "A bold word & more."),
        ("list", "- x"),
        ("table", "| 1 | 2 |"),
    ]
    assert doc.blocks[2].section == ("文 件", "One")


@pytest.mark.parametrize(
    ("text", "what"), [("<a><b></a>", "not well-formed"), ('<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "entities"), ("<a>" * 300, "nested more than 200")]
)
def test_xml_that_cannot_be_trusted_is_refused(tmp_path, text, what):
    assert what in fault_of(lambda: read_document(put(tmp_path, "a.xml", text), "a.xml", "xml-prose")).what


# PDF


def pdf(tmp_path, draw, **values):
    path = tmp_path / "a.pdf"
    page = canvas.Canvas(str(path), pagesize=(595, 842), **values)
    draw(page)
    page.save()
    return path


def lines(page, texts, *, top=760, size=11, left=72, font=FONT):
    page.setFont(font, size)
    for number, text in enumerate(texts):
        page.drawString(left, top - number * size * 1.4, text)


def test_a_pdf_gives_headings_paragraphs_across_lines_and_pages_and_no_running_heads(tmp_path):
    def draw(page):
        for number in range(1, 5):
            lines(page, ["内部资料 仅供参考"], top=815, size=9)
            lines(page, [f"第 {number} 页 共 4 页"], top=30, size=9)
            if number == 1:
                lines(page, ["年度报告"], top=780, size=20)
                lines(page, ["一、概况"], top=745, size=14)
                lines(page, ["本年度公司经营情况良好，各项指标均达到预期目标，现将有关情况", "报告如下。"], top=720)
                lines(page, ["The treat-", "ment of patients was con-", "tinued without a break"], top=680)
            else:
                lines(page, [f"and went on to page {number} of the file.", f"This is paragraph {number}."], top=760)
                lines(page, ["and so it goes"], top=700)
            page.showPage()

    doc = read_document(pdf(tmp_path, draw), "a.pdf", "pdf")
    assert "内部资料" not in doc.text
    assert "页 共" not in doc.text
    assert doc.counts["page_header_or_footer"] == 8
    assert [block[1] for block in blocks(doc)[:3]] == ["年度报告", "一、概况", "本年度公司经营情况良好，各项指标均达到预期目标，现将有关情况报告如下。"]
    assert blocks(doc)[3][1].startswith("The treatment of patients was continued without a break and went on to page 2 of the file.")
    assert [block.kind for block in doc.blocks[:3]] == ["heading", "heading", "paragraph"]
    assert doc.blocks[2].section == ("年度报告", "一、概况")
    assert {block.page for block in doc.blocks} == {1, 2, 3, 4}


def test_chinese_articles_in_a_pdf_are_units(tmp_path):
    texts = [
        "第一章 总则",
        "第一条 为了保护个人信息权益，规范个人信息处理活动，制定本法，依照",
        "第二条规定的程序执行。",
        "第二条 自然人的个人信息受法律保护。",
    ]
    doc = read_document(pdf(tmp_path, lambda page: lines(page, texts)), "a.pdf", "pdf")
    assert [(block.kind, block.article) for block in doc.blocks] == [("heading", None), ("article", "第一条"), ("article", "第二条")]
    assert doc.text.count("依照第二条规定的程序执行。") == 1


def test_two_columns_are_read_one_after_the_other(tmp_path):
    def draw(page):
        lines(page, [f"Left line number {number} of the text" for number in range(8)], left=60)
        lines(page, [f"Right line number {number} of the text" for number in range(8)], left=330)

    text = read_document(pdf(tmp_path, draw), "a.pdf", "pdf").text
    assert text.index("Left line number 7") < text.index("Right line number 0")


def test_a_ruled_table_of_a_pdf_is_a_table(tmp_path):
    path = tmp_path / "a.pdf"
    table = Table(
        [["药品", "剂量"], ["甲", "5 mg"], ["乙", "10 mg"]], style=TableStyle([("GRID", (0, 0), (-1, -1), 1, "black"), ("FONT", (0, 0), (-1, -1), FONT)])
    )
    SimpleDocTemplate(str(path)).build([table])
    doc = read_document(path, "a.pdf", "pdf")
    assert blocks(doc) == [("table", "| 药品 | 剂量 |\n| 甲 | 5 mg |\n| 乙 | 10 mg |")]


def test_a_scan_has_no_text_layer_and_the_remedy_is_named(tmp_path):
    fault = fault_of(lambda: read_document(pdf(tmp_path, lambda page: page.rect(10, 10, 50, 50, fill=1)), "a.pdf", "pdf"))
    assert "no text on any of 1 pages" in fault.what
    assert "character recognition" in fault.remedy


def test_a_page_that_is_only_a_picture_is_said(tmp_path):
    from PIL import Image

    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")

    def draw(page):
        lines(page, ["Some text."])
        page.showPage()
        page.drawImage(str(tmp_path / "a.png"), 100, 100, 200, 200)

    path = pdf(tmp_path, draw)
    assert read_document(path, "a.pdf", "pdf").unread == ((2, "page_without_text"),)
    source = read([SourceSettings(path="a.pdf", licence="x")], tmp_path)
    assert [item.reason if isinstance(item, Drop) else item.text for item in source] == ["page_without_text:page 2", "Some text."]
    assert (source.register[0]["notes"], source.register[0]["malformed"]) == ({"page_without_text": 1}, 0)


def test_a_file_of_which_most_pages_are_pictures_is_malformed(tmp_path):
    from PIL import Image

    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")

    def draw(page):
        lines(page, ["Some text."])
        for _ in range(2):
            page.showPage()
            page.drawImage(str(tmp_path / "a.png"), 100, 100, 200, 200)

    pdf(tmp_path, draw)
    with pytest.raises(SourceError, match="page_without_text:page 2"):
        list(read([SourceSettings(path="a.pdf", licence="x")], tmp_path))


def test_an_encrypted_pdf_is_refused_and_one_with_only_an_owner_s_password_is_read(tmp_path):
    locked = pdf(tmp_path, lambda page: lines(page, ["secret"], font="Helvetica"), encrypt=StandardEncryption("user", "owner"))
    assert "encrypted" in fault_of(lambda: read_document(locked, "a.pdf", "pdf")).what
    owned = pdf(tmp_path, lambda page: lines(page, ["open text"], font="Helvetica"), encrypt=StandardEncryption("", "owner"))
    assert read_document(owned, "a.pdf", "pdf").text == "open text"


def test_text_in_a_font_without_unicode_is_not_taken_for_words(tmp_path):
    # reportlab leaves the collection's name of a Chinese font out of the encryption, so that a reader cannot know what the characters are.
    path = pdf(tmp_path, lambda page: lines(page, ["open text"]), encrypt=StandardEncryption("", "owner"))
    assert "no readable text" in fault_of(lambda: read_document(path, "a.pdf", "pdf")).what


@pytest.mark.parametrize("data", [b"%PDF-1.7\n garbage", b"no pdf at all", b"", b"\x00\x01\x02" * 50])
def test_a_broken_pdf_is_refused(tmp_path, data):
    assert "PDF" in fault_of(lambda: read_document(put(tmp_path, "a.pdf", data), "a.pdf", "pdf")).what


def test_a_pdf_cut_off_in_the_middle_is_refused_or_read_without_a_traceback(tmp_path):
    whole = pdf(tmp_path, lambda page: lines(page, ["text"] * 30)).read_bytes()
    try:
        read_document(put(tmp_path, "b.pdf", whole[: len(whole) // 2]), "b.pdf", "pdf")
    except SourceError as error:
        assert error.faults[0].remedy


def test_a_pdf_stream_that_unpacks_to_too_much_is_refused():
    bomb = b"%PDF-1.4\n1 0 obj << /Filter /FlateDecode >>\nstream\n" + zlib.compress(b"0" * 3_000_000) + b"\nendstream"
    assert "unpacks to more than" in fault_of(lambda: check_streams(bomb, "a.pdf", largest=1_000_000)).what
    check_streams(bomb, "a.pdf")


# Word


def word(tmp_path, build):
    document = docx.Document()
    build(document)
    document.save(tmp_path / "a.docx")
    return tmp_path / "a.docx"


def test_word_gives_headings_lists_tables_and_their_order(tmp_path):
    def build(document):
        document.add_heading("入院指南", 0)
        document.add_heading("流程", 1)
        document.add_paragraph("先挂号，\n再就诊。")
        document.add_paragraph("带身份证", style="List Bullet")
        table = document.add_table(rows=3, cols=3)
        for row, values in zip(table.rows, (["科室", "时间", "地点"], ["内科", "上午", "一楼"], ["外科", "下午", "二楼"]), strict=True):
            for cell, text in zip(row.cells, values, strict=True):
                cell.text = text
        table.cell(1, 0).merge(table.cell(2, 0)).text = "内外科"
        table.cell(1, 1).merge(table.cell(1, 2)).text = "全天"
        document.sections[0].header.paragraphs[0].text = "医院内部"
        document.sections[0].footer.paragraphs[0].text = "第1页"

    doc = read_document(word(tmp_path, build), "a.docx", "docx")
    assert doc.title == "入院指南"
    assert blocks(doc) == [
        ("heading", "入院指南"),
        ("heading", "流程"),
        ("paragraph", "先挂号，\n再就诊。"),
        ("list", "- 带身份证"),
        ("table", "| 科室 | 时间 | 地点 |\n| 内外科 | 全天 |  |\n| 内外科 | 下午 | 二楼 |"),
    ]
    assert (doc.counts["page_header"], doc.counts["page_footer"]) == (1, 1)


RUNS = f"""<w:p {nsdecls("w")}><w:r><w:t xml:space="preserve">kept </w:t></w:r><w:ins w:id="1" w:author="x"><w:r><w:t>inserted</w:t></w:r></w:ins>
<w:del w:id="2" w:author="x"><w:r><w:delText>deleted</w:delText></w:r></w:del><w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r>
<w:r><w:footnoteReference w:id="2"/></w:r><w:r><w:t>.</w:t></w:r></w:p>"""
NOTES = f"""<?xml version="1.0"?><w:footnotes {nsdecls("w")}><w:footnote w:id="-1"><w:p/></w:footnote>
<w:footnote w:id="2"><w:p><w:r><w:t>见附录。</w:t></w:r></w:p></w:footnote></w:footnotes>"""


def test_revisions_hidden_text_and_footnotes_of_word(tmp_path):
    path = word(tmp_path, lambda document: document.element.body.insert(0, parse_xml(RUNS)))
    made = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "[Content_Types].xml":
                kind = b"application/vnd.openxmlformats-officedocument.wordprocessingml.footnotes+xml"
                data = data.replace(b"</Types>", b'<Override PartName="/word/footnotes.xml" ContentType="' + kind + b'"/></Types>')
            if name == "word/_rels/document.xml.rels":
                kind = b"http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"
                data = data.replace(b"</Relationships>", b'<Relationship Id="rId99" Type="' + kind + b'" Target="footnotes.xml"/></Relationships>')
            new.writestr(name, data)
        new.writestr("word/footnotes.xml", NOTES)
    doc = read_document(put(tmp_path, "b.docx", made.getvalue()), "b.docx", "docx")
    assert doc.text == "kept inserted[1].\n\n[1] 见附录。"
    assert (doc.counts["deleted"], doc.counts["hidden"]) == (1, 1)


def test_a_table_around_a_table_in_word_is_layout(tmp_path):
    def build(document):
        outer = document.add_table(rows=1, cols=2)
        outer.cell(0, 0).text = "Left."
        inner = outer.cell(0, 1).add_table(rows=1, cols=2)
        inner.cell(0, 0).text, inner.cell(0, 1).text = "1", "2"

    assert blocks(read_document(word(tmp_path, build), "a.docx", "docx")) == [("paragraph", "Left."), ("table", "| 1 | 2 |")]


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 broken", b"plain text"])
def test_a_broken_word_file_is_refused(tmp_path, data):
    assert fault_of(lambda: read_document(put(tmp_path, "a.docx", data), "a.docx", "docx")).remedy


def test_an_encrypted_word_file_and_an_old_one_are_told(tmp_path):
    path = put(tmp_path, "a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600)
    assert "encrypted or an old office file" in fault_of(lambda: read_document(path, "a.docx", "docx")).what


def test_an_archive_without_a_document_is_no_word_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.docx", "w") as archive:
        archive.writestr("x.txt", "x")
    assert "not a readable Word file" in fault_of(lambda: read_document(tmp_path / "a.docx", "a.docx", "docx")).what


def test_a_zip_bomb_is_refused_by_what_it_unpacks_to(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.docx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"0" * 2_000_000)
    assert (tmp_path / "a.docx").stat().st_size < 10_000
    assert "unpacks to 2,000,000 bytes" in fault_of(lambda: check_archive(tmp_path / "a.docx", "a.docx", largest=1_000_000)).what
