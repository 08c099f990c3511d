import math
from dataclasses import replace
from pathlib import Path

import pytest

from metier.errors import InputError
from metier.evaluation.items import Answer, Item, Task, conversation
from metier.evaluation.scorers import Grader, Tools, higher_is_better, metric_faults
from metier.packs.spec import Metric, OnDemand, Pack, PackFacts, TaskSpec, Term


def example_pack(**parts) -> Pack:
    facts = PackFacts(name="example", version="1", title={"en": "E"}, languages=("zh", "en"))
    return Pack(facts=facts, folder=Path(), digest="0" * 64, **parts)


def choose(item: Item, *logs: tuple[float, int]) -> tuple[Item, Answer]:
    return item, Answer(likelihoods=logs)


def graded(task: Task, pack: Pack, answers: list[Answer]) -> tuple[Grader, list]:
    grader = Grader(task, Tools(pack))
    return grader, [grader.grade(item, answer) for item, answer in zip(task.items, answers, strict=True)]


def choice_task(*items: Item) -> Task:
    return Task("c", "choose", items, (Metric(metric="acc"),))


HOT = Item("1", "zh", conversation("水？"), "热", ("冷", "热"))
COLD = Item("2", "en", conversation("water?"), "cold", ("cold", "very hot indeed"))


def test_accuracy_takes_the_likeliest_choice_and_acc_norm_the_likeliest_a_token():
    answers = [Answer(likelihoods=((-3.0, 1), (-2.0, 1))), Answer(likelihoods=((-4.0, 2), (-6.0, 4)))]
    grader, found = graded(choice_task(HOT, COLD), example_pack(), answers)
    assert [one.label for one in found] == ["热", "cold"]
    assert grader.measure("acc", found).point() == 1.0
    # -4/2 = -2 a token loses to -6/4 = -1.5 a token.
    assert grader.measure("acc_norm", found).values.tolist() == [1.0, 0.0]


def test_choice_probabilities_are_normalised_over_the_choices():
    _, found = graded(choice_task(HOT), example_pack(), [Answer(likelihoods=((-1000.0, 1), (-1000.0 + math.log(3), 1)))])
    assert found[0].probabilities == pytest.approx((0.25, 0.75))


def test_brier_by_hand():
    grader, found = graded(choice_task(HOT), example_pack(), [Answer(likelihoods=((math.log(0.25), 1), (math.log(0.75), 1)))])
    assert grader.measure("brier_score", found).point() == pytest.approx(0.25**2 + 0.25**2)
    assert not higher_is_better("brier_score", stated=True)


def written(target: str, *, parser: str | None = None, language: str = "en") -> Task:
    return Task("w", "generate", (Item("1", language, conversation("what fever?"), target),), (Metric(metric="exact_match"),), parser=parser)


@pytest.mark.parametrize(
    ("target", "text", "score"),
    [("Hot", " hot. ", 1.0), ("热", "热。", 1.0), ("３.５ mg", "3.5 MG", 1.0), ("3.5 mg", "35 mg", 0.0), ("热", "不热", 0.0), ("hot", "", 0.0)],
)
def test_exact_match_ignores_case_width_and_end_punctuation(target: str, text: str, score: float):
    grader, found = graded(written(target), example_pack(), [Answer(text)])
    assert grader.measure("exact_match", found).point() == score
    assert found[0].valid == bool(text.strip())


def number(text: str) -> float | None:
    try:
        return float(text.rsplit("=", maxsplit=1)[-1])
    except ValueError:
        return None


def test_a_parser_decides_what_is_valid_and_what_is_equal():
    task, pack = written("x = 7", parser="number"), example_pack(on_demand=OnDemand(parsers={"number": number}))
    for text, valid, score in (("so it = 7.0", True, 1.0), ("= 8", True, 0.0), ("seven", False, 0.0)):
        grader, found = graded(task, pack, [Answer(text)])
        assert (found[0].valid, grader.measure("exact_match", found).point()) == (valid, score)


def test_parsed_collections_are_compared_by_content():
    pack = example_pack(on_demand=OnDemand(parsers={"parts": lambda text: {part.strip() for part in text.split(";")} or None}))
    grader, found = graded(written("a; B", parser="parts"), pack, [Answer("b;a")])
    assert grader.measure("exact_match", found).point() == 1.0


def test_invalid_answers_score_zero_on_text_metrics_too():
    task, pack = written("x = 7", parser="number"), example_pack(on_demand=OnDemand(parsers={"number": number}))
    grader, found = graded(task, pack, [Answer("x = seven")])
    assert grader.measure("chrf", found).point() == 0.0
    assert grader.measure("rouge_l", found).point() == 0.0


@pytest.mark.parametrize("text", ["I'm sorry, I can't help with that.", "作为一个人工智能，我无法回答。", "抱歉", "   ", "As an AI model ..."])
def test_refusals_count_as_abstention(text: str):
    _, found = graded(written("x"), example_pack(), [Answer(text)])
    assert found[0].abstained


@pytest.mark.parametrize("text", ["The answer is 4.", "答案是热。", "She was sorry to leave."])
def test_answers_do_not(text: str):
    _, found = graded(written("x"), example_pack(), [Answer(text)])
    assert not found[0].abstained


def test_a_scorer_of_the_pack_gets_text_and_fields():
    seen = {}

    def scorer(prediction, fields):
        seen.update(fields, prediction=prediction)
        return 0.5

    task = written("gold")
    task = replace(task, items=(replace(task.items[0], fields={"dose": 3}),))
    grader, found = graded(task, example_pack(scorers={"own": scorer}), [Answer("text")])
    assert grader.measure("own", found).point() == 0.5
    assert seen == {"dose": 3, "target": "gold", "language": "en", "choices": [], "prediction": "text"}


def test_an_infinite_score_is_an_error_that_names_the_scorer():
    grader, found = graded(written("gold"), example_pack(scorers={"own": lambda text, fields: math.inf}), [Answer("text")])
    with pytest.raises(InputError, match="own"):
        grader.measure("own", found)


def test_term_metrics_in_both_languages():
    lexicon = (Term(code="F", system="s", preferred={"zh": "发热", "en": "fever"}), Term(code="C", system="s", preferred={"zh": "咳嗽", "en": "cough"}))
    pack = example_pack(lexicon=lexicon)
    for language, target, text in (("en", "cough and fever", "fever"), ("zh", "咳嗽、发热", "发热")):
        item = Item("1", language, conversation("?"), target)
        grader, found = graded(Task("w", "generate", (item,), ()), pack, [Answer(text)])
        assert grader.measure("term_precision", found).point() == 1.0
        assert grader.measure("term_recall", found).point() == 0.5


def test_bits_per_character_do_not_depend_on_the_tokens():
    item = Item("1", "zh", conversation("?"), "热水", ("热水",))
    grader, found = graded(Task("l", "likelihood", (item,), ()), example_pack(), [Answer(likelihoods=((-4 * math.log(2), 9),))])
    assert grader.measure("bits_per_character", found).point() == pytest.approx(2.0)


def spec(output_type: str, *metrics: Metric) -> TaskSpec:
    return TaskSpec(task="t", output_type=output_type, metric_list=metrics, metadata={"version": 1})


def test_metrics_that_are_unknown_do_not_fit_or_point_the_wrong_way_are_faults():
    pack = example_pack(scorers={"own": lambda text, fields: 0.0})
    bad = spec("generate_until", Metric(metric="roc_auc"), Metric(metric="chrff"), Metric(metric="term_recall"), Metric(metric="own"))
    faults = metric_faults(bad, pack, Path("tasks.yaml"))
    assert [fault.what for fault in faults] == [
        "the metric 'roc_auc' does not fit generate_until",
        "no metric 'chrff'",
        "term_recall needs a lexicon, and the pack has none",
    ]
    assert "chrf" in str(faults[1].remedy)
    turned = spec("multiple_choice", Metric(metric="brier_score", higher_is_better=True))
    assert [fault.what for fault in metric_faults(turned, pack, Path("t"))] == ["brier_score: higher_is_better is false"]
