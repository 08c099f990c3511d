"""Corpora of a pack: data with an example beside every function, and conformance runs it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from metier.errors import PackError
from metier.packs import conformance, load_folder, scaffold

ABOUT = "about: {title: Marks, url: 'https://example.org/marks', licence: CC0-1.0, citation: City library}"
READER = "{name: marks, ABOUT, files: '*.jsonl', format: json, reader: mark, examples: [{given: {s: HIS/2}, rows: [{shelf: HIS}]}]}"


def mark(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield {"shelf": row["s"].split("/")[0]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scaffold.write(tmp_path, "shelf")
    return tmp_path / "metier_shelf"


def faults(folder: Path, *corpora: str, **readers: Any) -> list[str]:
    items = "".join(f"  - {corpus}\n" for corpus in corpora).replace("ABOUT", ABOUT)
    (folder / "corpora.yaml").write_text(f"corpora:\n{items}", encoding="utf-8")
    return [fault.what for fault in conformance.check(load_folder(folder, readers=readers))]


def test_a_corpus_whose_reader_gives_what_its_example_says_conforms(folder: Path) -> None:
    assert faults(folder, READER, mark=mark) == []


@pytest.mark.parametrize(
    ("corpus", "said"),
    [
        (READER.replace("rows: [{shelf: HIS}]", "rows: [{shelf: ART}]"), "gives other rows for the example"),
        (READER.replace(", examples: [{given: {s: HIS/2}, rows: [{shelf: HIS}]}]", ""), "the reader has no example"),
        (READER.replace("rows: [{shelf: HIS}]", "row: 1"), "an example is {given: a row, rows: [...]} of a reader"),
        (READER.replace("format: json", "format: csv, element: x"), "have no elements"),
        ("{name: marks, ABOUT, files: '*.txt', format: file}", "whole files need a reader"),
        ("{name: marks, ABOUT, files: '*.xml', format: xml}", "needs the name of the element"),
    ],
)
def test_what_breaks_the_contract_is_said(folder: Path, corpus: str, said: str) -> None:
    readers = {"mark": mark} if "reader" in corpus else {}
    found = faults(folder, corpus, **readers)
    assert len(found) == 1
    assert said in found[0]


def test_names_are_given_once_and_a_function_that_no_corpus_names_is_told(folder: Path) -> None:
    plain = "{name: marks, ABOUT, files: '*.csv', format: csv}"
    assert faults(folder, plain, plain, mark=mark) == ["'marks' stands 2 times", "'marks' stands 2 times", "the reader 'mark' is named by no YAML file"]


def test_a_reader_that_is_in_no_table_is_a_fault_of_loading(folder: Path) -> None:
    with pytest.raises(PackError, match="'mark' is not in the pack's table of readers"):
        faults(folder, READER)
