"""Does the quality score order good from bad? Real question-answer pairs against the same pairs with planted defects.

    python benchmarks/quality.py --data FOLDER [--pairs 400] [--model bundled/gemma-3-270m --model-pairs 60]

For each corpus and defect the area under the ROC curve of the score (.5: no order, 1: every bad pair below every good one) with a 95 % bootstrap interval,
the share of good and of bad pairs with each verdict, and the speed of the rules on form on one core. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import platform
import random
import re
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from metier import models
from metier.prepare.quality import BaseEncoder, KnowledgeBase, Means, QualitySettings, assess, read_passages, screen
from metier.prepare.quality.exchange import exchange
from metier.prepare.quality.facts import quantities
from metier.prepare.quality.likelihood import Asked
from metier.records import Message, Record

Pair = tuple[str, str]
_BAD_SHARE = 4


def toyhom(data: Path) -> list[Pair]:
    (path,) = (data / "medical" / "toyhom-im-sample").glob("*.csv")
    return [(row["ask"], row["answer"]) for row in csv.DictReader(io.StringIO(path.read_bytes().decode("gb18030")))]


def huatuo(data: Path) -> list[Pair]:
    rows = json.loads((data / "medical" / "zhongjing" / "huatuo26M_test.json").read_text(encoding="utf-8"))
    return [(row["instruction"][0], row["output"][0]) for row in rows]


def medquad(data: Path) -> list[Pair]:
    pairs = []
    for name in ("5_NIDDK_QA", "6_NINDS_QA"):
        with tarfile.open(data / "medical" / "medquad" / f"{name}.tar.gz") as archive:
            for member in archive.getmembers():
                if member.name.endswith(".xml"):
                    tree = ElementTree.fromstring(archive.extractfile(member).read())
                    pairs += [(pair.findtext("Question"), " ".join((pair.findtext("Answer") or "").split())) for pair in tree.iter("QAPair")]
    return pairs


def lecoqa(data: Path) -> list[Pair]:
    return [(row["问题"], row["答案文本"]) for row in json.loads((data / "law" / "lecoqa" / "train.json").read_text(encoding="utf-8"))]


CORPORA: dict[str, tuple[str, Callable[[Path], list[Pair]]]] = {
    "toyhom": ("zh", toyhom),
    "huatuo": ("zh", huatuo),
    "lecoqa": ("zh", lecoqa),
    "medquad": ("en", medquad),
}


def truncated(answer: str, _: random.Random) -> str:
    cut = answer[: max(12, int(len(answer) * 0.6))]
    return cut.rstrip("。！？.!?；;,， ")


def repeated(answer: str, _: random.Random) -> str:
    piece = answer[: max(10, len(answer) // 4)]
    return (piece * 12)[: max(len(answer), 80)] + "。"


def garbled(answer: str, rng: random.Random) -> str:
    """Return Chinese text as UTF-8 read as GB18030 looks, English text with the letters of every word out of order."""
    if not answer.isascii() and sum("\u4e00" <= char <= "\u9fff" for char in answer) > len(answer) // 4:
        return answer.encode().decode("gb18030", errors="replace")
    return " ".join("".join(rng.sample(word, len(word))) for word in answer.split())


def renumbered(answer: str, rng: random.Random) -> str:
    """Return the answer with each number that has a unit multiplied."""
    for values in quantities(answer).values():
        for words in values.values():
            number = re.match(r"[0-9,.]+", words)
            if number:
                changed = str(int(float(number[0].replace(",", "")) * rng.choice((3, 4, 7))) + 1) + words[number.end() :]
            else:
                changed = f"{rng.randrange(41, 97)}{words[-1]}"
            answer = answer.replace(words, changed)
    return answer


def record(number: int, pair: Pair, language: str) -> Record:
    return Record(f"r{number:06d}", messages=(Message("user", pair[0]), Message("assistant", pair[1], True)), language=language)


def area(good: Sequence[float], bad: Sequence[float]) -> dict[str, float]:
    """Return the area under the curve with its 95 % percentile interval over 500 resamples."""
    left, right = np.asarray(good), np.asarray(bad)
    wins = (left[:, None] > right[None, :]) + 0.5 * (left[:, None] == right[None, :])
    rng = np.random.default_rng(0)
    drawn = [wins[np.ix_(rng.integers(len(left), size=len(left)), rng.integers(len(right), size=len(right)))].mean() for _ in range(500)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"auc": round(float(wins.mean()), 3), "low": round(float(low), 3), "high": round(float(high), 3), "good": len(left), "bad": len(right)}


def defective(pairs: Sequence[Pair], others: Sequence[Pair], rng: random.Random) -> dict[str, list[Pair]]:
    """Return pairs with one defect each, by defect."""
    chosen = pairs[: max(8, len(pairs) // _BAD_SHARE)]
    made = {
        name: [(question, change(answer, rng)) for question, answer in chosen]
        for name, change in (("truncated", truncated), ("repeated", repeated), ("garbled", garbled))
    }
    made["shuffled"] = [(question, chosen[(place + 1) % len(chosen)][1]) for place, (question, _) in enumerate(chosen)]
    made["other language"] = [(question, others[place % len(others)][1]) for place, (question, _) in enumerate(chosen)]
    return made


def ordered(pairs: Sequence[Pair], defects: dict[str, list[Pair]], language: str, settings: QualitySettings, means: Means) -> dict[str, Any]:
    """Return for each defect how the score orders the pairs, measured in a set of all good pairs and a fourth as many bad ones."""
    found = {}
    for name, bad in defects.items():
        if len(bad) < 8:
            continue
        records = [record(number, pair, language) for number, pair in enumerate([*pairs, *bad])]
        scored = list(assess(records, settings, means))
        scores = [item.score or 0.0 for item in scored]
        verdicts = [Counter(item.verdict for item in part) for part in (scored[: len(pairs)], scored[len(pairs) :])]
        shares = {
            side: {verdict: round(count / sum(counts.values()), 3) for verdict, count in counts.items()}
            for side, counts in zip(("good", "bad"), verdicts, strict=True)
        }
        found[name] = {**area(scores[: len(pairs)], scores[len(pairs) :]), "verdicts": shares}
        print(name, found[name], flush=True)
    return found


def facts_against_base(pairs: Sequence[Pair], knowledge: KnowledgeBase, rng: random.Random) -> dict[str, Any]:
    """Return how facts order answers from the same ones with other numbers, where the base gives numbers at all."""
    numbered = [pair for pair in pairs if quantities(pair[1])]
    bad = [(question, renumbered(answer, rng)) for question, answer in numbered]
    settings, means = QualitySettings(encoder="none"), Means(knowledge=knowledge)
    sides = [
        [item.dimensions["facts"] for item in assess([record(number, pair, "zh") for number, pair in enumerate(side)], settings, means)]
        for side in (numbered, bad)
    ]
    both = [(good, wrong) for good, wrong in zip(*sides, strict=True) if good.value is not None and wrong.value is not None]
    if len(both) < 8:
        return {"good": len(both)}
    contradicted = {
        side: round(sum(any("another number" in why for why in pair[place].why) for pair in both) / len(both), 3) for place, side in enumerate(("good", "bad"))
    }
    lower = round(sum(wrong.value < good.value for good, wrong in both) / len(both), 3)
    return {**area([good.value for good, _ in both], [wrong.value for _, wrong in both]), "lower": lower, "contradicted": contradicted, "asked": len(numbered)}


def speed(corpora: dict[str, list[Pair]]) -> dict[str, Any]:
    """Return the rows a second of `screen` on one core: all rows, and those of at most 150 characters."""
    settings, found = QualitySettings(), {}
    for name, pairs in corpora.items():
        language = CORPORA[name][0]
        for kind, kept in (("all", pairs), ("short", [pair for pair in pairs if len(pair[0]) + len(pair[1]) <= 150])):
            rows = [record(number, pair, language) for number, pair in enumerate(kept[:6000])]
            if len(rows) < 100:
                continue
            for row in rows[:50]:
                screen(row, settings)
            began = time.process_time()
            for row in rows:
                screen(row, settings)
            seconds = time.process_time() - began
            size = sum(len(pair[0]) + len(pair[1]) for pair in kept[:6000]) / len(rows)
            found[f"{name} {kind}"] = {"rows_per_second": round(len(rows) / seconds), "characters": round(size), "rows": len(rows)}
    return found


def with_model(corpora: dict[str, list[Pair]], name: str, count: int) -> dict[str, Any]:
    """Return how the score orders a few pairs with perplexity and gain under a base model, with its hidden states, and the tokens a second."""
    base = models.resolve(name, root=Path.cwd())
    model = models.LocalModel.open(base)
    out: dict[str, Any] = {}
    for corpus in ("lecoqa", "toyhom"):
        pairs = [(question[:200], answer[:160]) for question, answer in corpora[corpus][:count]]
        bad = {"shuffled": [(question, pairs[(place + 1) % len(pairs)][1]) for place, (question, _) in enumerate(pairs)][: count // 2]}
        bad["garbled"] = [(question, garbled(answer, random.Random(0))) for question, answer in pairs[: count // 4]]
        began = time.perf_counter()
        asked = Asked(model, Path(tempfile.mkdtemp()) / "likelihoods.jsonl", salt="")
        tokens = sum(known.tokens for known in asked.ask([exchange(record(number, pair, "zh")) for number, pair in enumerate(pairs)]))
        out[f"{corpus} tokens_per_second"] = round(tokens * 2 / (time.perf_counter() - began), 1)
        likely = QualitySettings(model="base", encoder="none")
        out[f"{corpus} likelihood"] = ordered(pairs, bad, "zh", likely, Means(model=model, model_digest=base.digest))
        states = QualitySettings(model="base", encoder="base")
        out[f"{corpus} hidden states"] = ordered(pairs, bad, "zh", states, Means(encoder=BaseEncoder(model)))
        out[f"{corpus} lexical"] = ordered(pairs, bad, "zh", QualitySettings(), Means())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of published corpora")
    parser.add_argument("--pairs", type=int, default=400, help="good pairs a corpus")
    parser.add_argument("--model", default=None, help="base model, for perplexity and hidden states")
    parser.add_argument("--model-pairs", type=int, default=60)
    parser.add_argument("--only-model", action="store_true", help="skip what needs no model")
    options = parser.parse_args()
    rng = random.Random(0)
    corpora = {}
    for name, (_, read) in CORPORA.items():
        pairs = [(question.strip(), answer.strip()) for question, answer in read(options.data) if isinstance(question, str) and isinstance(answer, str)]
        corpora[name] = rng.sample(
            [pair for pair in pairs if len(pair[0]) >= 4 and len(pair[1]) >= 20], k=len(pairs) * 4 // 5 if len(pairs) > 2000 else min(len(pairs), 1200) * 4 // 5
        )
    ours: dict[str, Any] = {}
    if not options.only_model:
        ours["speed"] = speed(corpora)
        print(ours["speed"], flush=True)
        for name, pairs in corpora.items():
            print(name, flush=True)
            others = corpora["medquad" if CORPORA[name][0] == "zh" else "toyhom"]
            chosen = pairs[: options.pairs]
            ours[name] = ordered(chosen, defective(chosen, others, rng), CORPORA[name][0], QualitySettings(), Means())
        knowledge = KnowledgeBase(
            passage for folder in sorted((options.data / "law" / "cn-statutes").iterdir()) if folder.is_dir() for passage in read_passages(folder)
        )
        ours["wrong numbers against the statutes (lecoqa, facts alone)"] = facts_against_base(corpora["lecoqa"], knowledge, rng)
    if options.model:
        ours["model"] = with_model(corpora, options.model, options.model_pairs)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    print(json.dumps({"benchmark": "quality", "machine": machine, "ours": ours, "peers": {}, "ratios": {}}, ensure_ascii=False))


if __name__ == "__main__":
    main()
