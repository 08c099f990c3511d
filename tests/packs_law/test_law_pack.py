import math
from pathlib import Path

import pytest

from metier.evaluation.scorers import metric_faults
from metier.packs import load
from metier.packs.conformance import check
from metier.packs.matching import guard_finds
from metier.privacy import Surrogates, deidentify_texts, rules_of
from metier_law.scoring import articles_match

PACK = load("law")


def found(text: str, language: str) -> tuple[str, list[str]]:
    identifiers, validators = rules_of(PACK)
    result = deidentify_texts([text], identifiers=identifiers, validators=validators, language=language, surrogates=Surrogates(b"k" * 32))
    return result.texts[0], [span.text for span in result.spans[0]]


def test_the_pack_conforms_and_evaluation_knows_its_metrics() -> None:
    assert check(PACK) == []
    assert [fault for task in PACK.tasks for fault in metric_faults(task, PACK, Path("evaluation.yaml"))] == []


def test_case_numbers_and_parties_leave_a_judgment_and_articles_stay() -> None:
    text = "（2022）京0105民初1234号。原告：李晓明，男。被告王强犯盗窃罪，依照刑法第二百六十四条判决。李晓明不服。"
    output, spans = found(text, "zh")
    assert spans == ["（2022）京0105民初1234号", "李晓明", "王强", "李晓明"]
    assert "依照刑法第二百六十四条判决" in output
    assert "1234号" not in output and "李晓明" not in output and "王强" not in output


def test_dockets_and_parties_leave_an_english_judgment() -> None:
    output, spans = found("Case No. 1:21-cv-01234-ABC. Plaintiff John Doe alleges breach under Section 2-207.", "en")
    assert spans == ["1:21-cv-01234-ABC", "John Doe"]
    assert output.endswith("alleges breach under Section 2-207.")


@pytest.mark.parametrize(
    ("answer", "target", "score"),
    [
        ("依据民法典第五百七十七条", "民法典第五百七十七条", 1.0),
        ("第五百七十七条、第五百八十四条", "第五百七十七条", 2 / 3),
        ("see Article 5", "article  5 and Section 7", 2 / 3),
        ("不知道", "第一条", 0.0),
    ],
)
def test_cited_articles_are_compared(answer: str, target: str, score: float) -> None:
    assert articles_match(answer, {"target": target}) == pytest.approx(score)


def test_items_without_articles_say_nothing() -> None:
    assert math.isnan(articles_match("第一条", {"target": "可以"}))


def test_advice_is_disclaimed_and_help_to_break_the_law_refused() -> None:
    rules = {rule.name: rule for rule in PACK.guard}
    assert guard_finds(rules["legal_advice"], "建议起诉。")
    assert rules["evade_law"].action == "refuse"
    assert guard_finds(rules["evade_law"], "怎么销毁证据")
