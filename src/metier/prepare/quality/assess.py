"""Quality of a set: calibrate on a sample, then measure every record in batches. The records are read twice and never held."""

from __future__ import annotations

import hashlib
import heapq
import statistics
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from metier.packs.matching import applies, quality_reason
from metier.packs.spec import QualityRule
from metier.prepare.language import detect
from metier.prepare.quality.exchange import Exchange, exchange
from metier.prepare.quality.facts import check_facts
from metier.prepare.quality.heuristics import Finding, judge_form, judge_turns, kept
from metier.prepare.quality.instruction import follows
from metier.prepare.quality.likelihood import Asked, Likely
from metier.prepare.quality.means import Means
from metier.prepare.quality.relevance import LexicalEncoder, Related, Relevance, percentile, relevance_value
from metier.prepare.quality.safety import safety
from metier.prepare.quality.scoring import Assessment, Dimension, assessed
from metier.prepare.quality.settings import QualitySettings
from metier.prepare.quality.terms import terms
from metier.progress import SILENT, Progress
from metier.records import Record

__all__ = ["assess", "form", "novelty"]

_ENOUGH_NEW = {"zh": 24, "en": 15}
"""Pairs of Han letters or words that the question did not hold, from which an answer counts as saying enough."""
_TASK = "quality"
_NO_MEANS = Means()
_LABEL_CHARACTERS = 24
_SHUFFLED = 128
_NOTHING_FOUND = Dimension(1.0, "rules")
_SURPRISE = (3.0, 8.0)
_FLAT = (-3.0, -6.0)


@dataclass(slots=True)
class _Calibration:
    """What random pairs and the spread of perplexity look like, by language."""

    relevance: dict[str | None, Relevance] = field(default_factory=dict)
    gains: dict[str | None, list[float]] = field(default_factory=dict)
    spread: dict[str | None, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Item:
    record: Record
    language: str | None
    found: Exchange


def assess(
    records: Iterable[Record], settings: QualitySettings, means: Means = _NO_MEANS, *, folder: Path | None = None, progress: Progress = SILENT
) -> Iterator[Assessment]:
    """Yield what is said of each record, in order. `records` has to be iterable twice, the same way (a list, or a class that reads files).

    What a model says is kept in `folder` batch by batch, so that an interrupted run goes on; without a folder it is not kept.
    """
    with nullcontext(folder) if folder is not None else tempfile.TemporaryDirectory(prefix="metier-quality-") as place:
        asked = None if means.model is None else Asked(means.model, Path(place) / "likelihoods.jsonl", salt=means.model_digest)
        calibration = _calibrate(records, settings, means, asked)
        source = (_item(record, settings) for record in records)
        progress.start(_TASK, None, "records")
        while block := list(islice(source, settings.batch)):
            likely = [None] * len(block) if asked is None else asked.ask([item.found for item in block])
            related = _related(block, calibration)
            for item, known, alike in zip(block, likely, related, strict=True):
                yield _judge(item, known, alike, calibration, settings, means)
            progress.advance(_TASK, len(block))
        progress.finish(_TASK)


def _item(record: Record, settings: QualitySettings) -> _Item:
    found = exchange(record, question=settings.question, answer=settings.answer)
    return _Item(record, record.language or detect(f"{found.question}\n{found.answer}"), found)


def _calibrate(records: Iterable[Record], settings: QualitySettings, means: Means, asked: Asked | None) -> _Calibration:
    calibration = _Calibration()
    if settings.encoder == "none" and means.encoder is None and asked is None:
        return calibration
    drawn = _sample(records, settings)
    for language, items in sorted(drawn.items(), key=lambda pair: pair[0] or ""):
        pairs = [(item.found.question, item.found.last or item.found.answer) for item in items if item.found.paired]
        if settings.encoder != "none" or means.encoder is not None:
            encoder = means.encoder or LexicalEncoder(text for pair in pairs for text in pair)
            calibration.relevance[language] = Relevance(encoder, pairs)
        if asked is not None:
            _calibrate_model(calibration, language, items, asked)
    return calibration


def _calibrate_model(calibration: _Calibration, language: str | None, items: Sequence[_Item], asked: Asked) -> None:
    """Learn the spread of perplexity, and what a question tells of the answer to another one."""
    own = [known.alone for known in asked.ask([item.found for item in items]) if known.alone is not None]
    if len(own) >= 8:
        middle = statistics.median(own)
        # 1.4826 times the median deviation estimates the standard deviation of a normal distribution.
        calibration.spread[language] = (middle, 1.4826 * statistics.median(abs(value - middle) for value in own) or 0.1)
    paired = [item for item in items if item.found.paired and not _is_label(item)][:_SHUFFLED]
    mixed = []
    for place, item in enumerate(paired):
        other = paired[(place + 1) % len(paired)].found
        if other.last != item.found.last and other.question != item.found.question:
            mixed.append(Exchange(item.found.question, other.answer, item.found.prompt, other.last))
    gains = [known.gain for known in asked.ask(mixed) if known.gain is not None]
    if len(gains) >= 8:
        calibration.gains[language] = gains


def _sample(records: Iterable[Record], settings: QualitySettings) -> dict[str | None, list[_Item]]:
    """Return for each language the records with the smallest hashes: the same ones whatever their order."""
    heaps: dict[str | None, list[tuple[int, str, _Item]]] = {}
    for record in records:
        item = _item(record, settings)
        if not item.found.answer.strip():
            continue
        rank = -int.from_bytes(hashlib.sha256(f"{settings.seed}\x00{record.id}".encode()).digest()[:8], "big")
        heap = heaps.setdefault(item.language, [])
        if len(heap) < settings.sample:
            heapq.heappush(heap, (rank, record.id, item))
        elif rank > heap[0][0]:
            heapq.heapreplace(heap, (rank, record.id, item))
    return {language: [item for _, _, item in sorted(heap, key=lambda entry: (-entry[0], entry[1]))] for language, heap in heaps.items()}


def _is_label(item: _Item) -> bool:
    label, answer = item.record.label, item.found.last or item.found.answer
    return label is not None and len(answer) <= max(_LABEL_CHARACTERS, len(label) + 8) and label in answer


def _related(block: Sequence[_Item], calibration: _Calibration) -> list[Related | None]:
    found: dict[int, Related | None] = {}
    for language, relevance in calibration.relevance.items():
        places = [place for place, item in enumerate(block) if item.language == language and item.found.paired and not _is_label(item)]
        pairs = [(block[place].found.question, block[place].found.last or block[place].found.answer) for place in places]
        found.update(zip(places, relevance.relate(pairs), strict=True))
    return [found.get(place) for place in range(len(block))]


def form(
    record: Record, settings: QualitySettings, quality: Sequence[QualityRule] = (), *, novel: bool = True
) -> tuple[dict[str, Dimension], tuple[Finding, ...]]:
    """Return fluency, format and information of a record by its form alone, and what the rules found. Needs no other record.

    Without `novel`, information is what the rules leave of it, and how much the answer adds to the question is not counted.
    """
    return _form(_item(record, settings), quality, novel=novel)


def _form(item: _Item, quality: Sequence[QualityRule], *, novel: bool = True) -> tuple[dict[str, Dimension], tuple[Finding, ...]]:
    answer, language = item.found.answer, item.language
    if not answer.strip():
        nothing = Dimension(None, "rules", ("the record has no text to judge",))
        return {"fluency": nothing, "format": nothing, "information": nothing}, ()
    findings = (*judge_form(answer, language), *judge_turns(item.found), *_pack_findings(item, quality))
    if not findings and not novel:
        return dict.fromkeys(("fluency", "format", "information"), _NOTHING_FOUND), ()
    why = {name: tuple(f"{found.rule}: {found.why}" for found in findings if found.dimension == name) for name in ("fluency", "format", "information")}
    if _is_label(item):
        label = Dimension(None, "rules", ("the answer is a label",))
        return {"fluency": Dimension(kept(findings, "fluency"), "rules", why["fluency"]), "format": label, "information": label}, findings
    new, enough = novelty(item.found.question, answer, language) if novel else (1, 1)
    information = min(1.0, new / enough) * kept(findings, "information")
    said = (*why["information"], *([f"{new} units that the question does not hold, enough are {enough}"] if new < enough else []))
    return {
        "fluency": Dimension(kept(findings, "fluency"), "rules", why["fluency"]),
        "format": Dimension(kept(findings, "format"), "rules", why["format"]),
        "information": Dimension(information, "rules", said),
    }, findings


def _pack_findings(item: _Item, quality: Sequence[QualityRule]) -> Iterator[Finding]:
    for rule in quality:
        if applies(rule.languages, item.language) and (reason := quality_reason(rule, item.found.answer)) is not None:
            yield Finding(rule.name, "information", 1.0, 1.0, f"the pack's rule {reason}")


def novelty(question: str, answer: str, language: str | None) -> tuple[int, int]:
    """Return how many different units (pairs of Han letters, words) an answer holds that its question does not, and how many are enough."""
    return len(set(terms(answer)) - set(terms(question))), _ENOUGH_NEW.get(language or "", _ENOUGH_NEW["en"])


def _judge(item: _Item, known: Likely | None, alike: Related | None, calibration: _Calibration, settings: QualitySettings, means: Means) -> Assessment:
    dimensions, _ = _form(item, means.quality)
    if known is not None:
        dimensions["fluency"] = _with_perplexity(dimensions["fluency"], known, calibration.spread.get(item.language))
    dimensions["relevance"] = _relevance(item, known, alike, calibration, settings)
    dimensions["facts"] = _facts(item, means, settings)
    dimensions["instruction"] = _instruction(item)
    dimensions["safety"] = _safety(item, means)
    return assessed(item.record.id, item.language, dimensions, paired=item.found.paired, settings=settings)


def _with_perplexity(by_rules: Dimension, known: Likely, spread: tuple[float, float] | None) -> Dimension:
    """Take from fluency where an answer is far less likely than the set's usual one (garbled), or far more (repeated, boilerplate)."""
    if by_rules.value is None or known.alone is None or spread is None:
        return by_rules
    middle, deviation = spread
    away = (middle - known.alone) / deviation
    left = 1.0
    for low, high in (_SURPRISE, _FLAT):
        if (away - low) * (high - low) > 0:
            left = max(0.0, 1 - (away - low) / (high - low))
    if left == 1:
        return Dimension(by_rules.value, f"{by_rules.how}, perplexity {known.perplexity:.1f}", by_rules.why)
    side = "above" if away > 0 else "below"
    why = f"perplexity {known.perplexity:.1f} is {abs(away):.1f} deviations {side} the language's middle"
    return Dimension(by_rules.value * left, f"{by_rules.how}, perplexity", (*by_rules.why, why))


def _relevance(item: _Item, known: Likely | None, alike: Related | None, calibration: _Calibration, settings: QualitySettings) -> Dimension:
    if not item.found.paired:
        return Dimension(None, "none", ("there is no question with an answer",))
    if _is_label(item):
        return Dimension(None, "none", ("the answer is a label",))
    gains = calibration.gains.get(item.language)
    if alike is None and known is not None and known.gain is not None and gains:
        above = percentile(known.gain, gains)
        why = f"the question tells {known.gain:+.2f} nats a token of the answer, more than {above:.0%} of {len(gains)} random pairs"
        return _compared(above, "base model", why, settings)
    if alike is None:
        return Dimension(None, "none", ("no encoder is set" if not calibration.relevance else "too few other pairs of its language",))
    why = f"similarity {alike.similarity:.2f} is above {alike.above:.0%} of {alike.pairs} random pairs"
    return _compared(alike.above, calibration.relevance[item.language].encoder.name, why, settings)


def _compared(above: float, how: str, why: str, settings: QualitySettings) -> Dimension:
    return Dimension(relevance_value(above, irrelevant=settings.thresholds.irrelevant), how, (why,))


def _facts(item: _Item, means: Means, settings: QualitySettings) -> Dimension:
    if means.knowledge is None:
        return Dimension(None, "none", ("no knowledge base is set",))
    if _is_label(item) or not item.found.answer.strip():
        return Dimension(None, "knowledge base", ("there is no statement to check",))
    found = check_facts(item.found.question, item.found.answer, means.knowledge, covered=settings.thresholds.covered)
    if found.value is None:
        return Dimension(None, "knowledge base", (f"the knowledge base says nothing of it (support {found.support:.2f})",))
    why = [f"support {found.support:.2f} in {len(found.passages)} passages"]
    why += [f"the best passages give another number than {words}" for words in found.contradicted]
    why += [f"the source {title} is not in the knowledge base" for title in found.sources_missing]
    return Dimension(found.value, "knowledge base", tuple(why))


def _instruction(item: _Item) -> Dimension:
    if not item.found.paired:
        return Dimension(None, "none", ("there is no question with an answer",))
    if _is_label(item):
        return Dimension(None, "none", ("the answer is a label",))
    found = follows(item.found.question, item.found.last or item.found.answer)
    how = f"checked: {', '.join(found.asked)}" if found.asked else "checked: language, no echo"
    return Dimension(found.value, how, tuple(f"not done: {missed}" for missed in found.missed))


def _safety(item: _Item, means: Means) -> Dimension:
    if not means.guard:
        return Dimension(None, "none", ("the pack has no guard rules",))
    if not item.found.answer.strip():
        return Dimension(None, "none", ("there is no answer",))
    found = safety(item.found.question, item.found.answer, item.language, means.guard)
    return Dimension(found.value, "guard rules", found.why)


def explained(assessment: Assessment) -> Mapping[str, str]:
    """Return every dimension of an assessment in words."""
    return {name: dimension.explained(name) for name, dimension in assessment.dimensions.items()}
