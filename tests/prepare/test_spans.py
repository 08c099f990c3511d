"""Texts with labels and spans on their way into a dataset: no template, no span that marks something else than before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from corpus_of_prepare import distinct, made, pack, row, template
from metier.artifacts import Artifact
from metier.models import Base, load_tokenizer
from metier.packs import load
from metier.prepare import PrepareSettings, for_labels
from metier.prepare.deidentify import deidentify, identifier_rules
from metier.prepare.lengths import LengthSettings, fit, text_counter
from metier.prepare.refine import counter_of
from metier.privacy.settings import DeidentifySettings
from metier.records import Record, Span
from metier.shards import SPLITS, dataset_records

ECHO = template("echo", "zh", ("text",), "{{ text }}", "好")


def marked(text: str, *pieces: str) -> Record:
    return Record("r", text, spans=tuple(Span(text.index(piece), text.index(piece) + len(piece), "Thing", piece) for piece in pieces), language="zh")


def said(record: Record) -> list[str]:
    assert all(record.text[span.start : span.end] == span.text for span in record.spans)
    return [span.text for span in record.spans]


def everything(dataset: Artifact) -> list[Record]:
    return [record for split in SPLITS for record in dataset_records(dataset, split)]


def rows() -> Sequence[Record]:
    """Return texts with one marked word each, with remains of HTML before it."""
    found = []
    for number, record in enumerate(distinct(40)):
        text = f"<b>{record.messages[0].content}</b>&nbsp;red pen  {record.messages[1].content}"
        found.append(row(number, text=text, spans=(Span(text.index("red pen"), text.index("red pen") + 7, "Thing", "red pen"),)))
    return found


def test_spans_move_with_a_text_that_is_cleaned(tmp_path: Path) -> None:
    settings = for_labels(PrepareSettings.model_validate({"clean": {"html": True}, "deidentify": {"enabled": False}, "split": {"by": ()}})).model_dump()
    dataset = made(tmp_path, list(rows()), rules=pack(templates=(ECHO,)), **settings)
    records = everything(dataset)
    assert len(records) == 40
    assert all("<b>" not in record.text and record.messages == () for record in records)
    assert [said(record) for record in records] == [["red pen"]] * 40


def test_spans_hold_what_stands_in_the_place_of_an_identifier() -> None:
    record = marked("患者姓名：张伟，电话13812345678，诊断为糖尿病。", "张伟", "糖尿病")
    settings = DeidentifySettings()
    changed, _, _ = deidentify(record, settings, identifier_rules(load("medical"), settings), bytes(range(32)))
    name, illness = said(changed)
    assert "张伟" not in changed.text
    assert name != "张伟"
    assert changed.text.startswith(f"患者姓名：{name}，")
    assert illness == "糖尿病"


def test_where_labels_are_taught_no_template_is_applied_unless_the_project_says_so(tmp_path: Path) -> None:
    plain = for_labels(PrepareSettings())
    assert plain.compose.text == "only"
    own = PrepareSettings.model_validate({"compose": {"text": "keep"}})
    assert for_labels(own) == own
    texts = [row(number, text=record.messages[0].content + record.messages[1].content) for number, record in enumerate(distinct(30))]
    dataset = made(tmp_path, texts, rules=pack(templates=(ECHO,)), compose={"text": "only"}, split={"by": ()}, deidentify={"enabled": False})
    assert dataset.facts["counts"]["task"] == {"text": 30}


def test_a_text_is_split_at_sentences_with_its_spans_for_a_tokenizer_without_conversations(encoder: Base) -> None:
    record = marked("红笔在左边的桌子上。" * 6 + "绿灯在门后。", "绿灯")
    count = counter_of(encoder)
    tokenizer = load_tokenizer(encoder)
    assert count(record) == text_counter(tokenizer)(record) == len(tokenizer(record.text)["input_ids"])
    parts = [part[0] for part in fit(record, LengthSettings(over="split"), count, maximum=40)]  # type: ignore[index]
    assert "".join(part.text for part in parts) == record.text
    assert [said(part) for part in parts if part.spans] == [["绿灯"]]
    assert all(count(part) <= 40 for part in parts)
