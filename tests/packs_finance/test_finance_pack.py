import math
from pathlib import Path

from metier.evaluation.scorers import metric_faults
from metier.packs import load
from metier.packs.conformance import check
from metier.packs.matching import guard_finds
from metier.privacy import Surrogates, deidentify_texts, rules_of
from metier_finance.scoring import figures_match

PACK = load("finance")


def test_the_pack_conforms_and_evaluation_knows_its_metrics() -> None:
    assert check(PACK) == []
    assert [fault for task in PACK.tasks for fault in metric_faults(task, PACK, Path("evaluation.yaml"))] == []


def test_accounts_leave_the_text_and_amounts_stay() -> None:
    identifiers, validators = rules_of(PACK)
    text = "客户姓名：李明，账号：0200004509014411234，保单号：PAIC2022-0098812，贷款金额500000元，利率3.85%。"
    result = deidentify_texts([text], identifiers=identifiers, validators=validators, language="zh", surrogates=Surrogates(b"k" * 32))
    assert [span.text for span in result.spans[0]] == ["李明", "0200004509014411234", "PAIC2022-0098812"]
    assert result.texts[0].endswith("贷款金额500000元，利率3.85%。")
    assert "0200004509014411234" not in result.texts[0]


def test_figures_are_compared_by_value() -> None:
    assert figures_match("共 1,200.50 元", {"target": "1200.5元"}) == 1.0
    assert figures_match("1200.5 and 3", {"target": "1200.5"}) == 0.0
    assert figures_match("１２元", {"target": "12 yuan"}) == 1.0
    assert math.isnan(figures_match("12", {"target": "不适用"}))


def test_advice_is_disclaimed_and_promises_are_refused() -> None:
    rules = {rule.name: rule for rule in PACK.guard}
    assert rules["promised_return"].action == "refuse"
    assert guard_finds(rules["promised_return"], "零风险产品")
    assert guard_finds(rules["investment_advice"], "You should sell now.")
