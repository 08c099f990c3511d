"""Real documents and corpora: every article of 467 statutes, contracts, health questions and questions on abstracts."""

import json
import os
import re
import tarfile
from pathlib import Path

import pytest

from metier import packs
from metier.records import Drop
from metier.sources import SourceSettings, read
from metier.sources.documents import ChunkSettings, chunks, read_document

ROOT = os.environ.get("METIER_ACCEPTANCE_DATA", "")
pytestmark = [pytest.mark.acceptance, pytest.mark.skipif(not ROOT, reason="METIER_ACCEPTANCE_DATA names no folder of real corpora")]
DATA = Path(ROOT)
NUMBER = "[〇零一二三四五六七八九十百千0-9]+"
ARTICLE = re.compile(rf"^[ \u200b]*(第{NUMBER}条(?:之{NUMBER})?)(?=[\s\u3000])", re.MULTILINE)


def corpus(name, path, pack, root=DATA):
    return read([SourceSettings(path=str(path), corpus=name)], root, pack=packs.load(pack))


def test_every_article_of_every_statute_is_one_record_in_its_order():
    found: dict[str, list[str]] = {}
    records = list(corpus("cn-statutes", DATA / "law/cn-statutes", "law"))
    assert not [item for item in records if isinstance(item, Drop)]
    for record in records:
        if record.metadata["article"] and record.metadata["part"] in (None, 1):
            found.setdefault(record.source.uri, []).append(record.metadata["article"])
    assert sum(map(len, found.values())) == 31591
    assert len({record.source.uri for record in records}) == 467
    for uri, articles in found.items():
        assert articles == ARTICLE.findall((DATA / uri).read_text(encoding="utf-8"))


def test_nothing_of_the_contracts_is_lost_or_doubled(tmp_path):
    texts = [item["text"] for item in json.loads((DATA / "law/contract-nli/dev.json").read_text(encoding="utf-8"))["documents"]]
    assert len(texts) == 61
    for number, text in enumerate(texts):
        path = tmp_path / f"{number}.txt"
        path.write_text(text, encoding="utf-8")
        document = read_document(path, path.name, "text")
        pieces = [document.text[chunk.start : chunk.end] for chunk in chunks(document, ChunkSettings())]
        assert "".join("".join(pieces).split()) == "".join(text.split())


def test_medquad_is_read_whole(tmp_path):
    for archive in sorted((DATA / "medical/medquad").glob("*.tar.gz")):
        with tarfile.open(archive) as opened:
            opened.extractall(tmp_path, filter="data")
    found = list(corpus("medquad", ".", "medical", tmp_path))
    drops = [item.reason for item in found if isinstance(item, Drop)]
    assert (len(found), drops) == (16412, ["missing_value:Answer"] * 5)
    assert sum(not item.metadata["focus"] for item in found if not isinstance(item, Drop)) == 14, "three pages name no focus"


def test_pubmedqa_is_read_whole():
    found = list(corpus("pubmedqa", DATA / "medical/pubmedqa", "medical"))
    labels = [record.label for record in found]
    assert [labels.count(name) for name in ("yes", "no", "maybe")] == [276, 169, 55]
