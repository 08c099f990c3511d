import pytest

from metier.errors import PackError
from metier.packs.conformance import trap_in
from metier.privacy import Detector
from metier.privacy.general import rules_of_all
from metier.privacy.synthetic import MAKERS, VARIANTS, examples, material, presidio

LANGUAGES = ("zh", "en")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_same_seed_writes_the_same_and_another_seed_another(language: str) -> None:
    first = list(examples(language, 60, seed=1))
    assert list(examples(language, 60, seed=1)) == first
    assert [item.text for item in examples(language, 60, seed=2)] != [item.text for item in first]
    assert list(examples(language, 80, seed=1))[:60] == first


@pytest.mark.parametrize("language", LANGUAGES)
def test_spans_point_at_their_values(language: str) -> None:
    for example in examples(language, 400, seed=3):
        assert example.spans
        for span in example.spans:
            assert example.text[span.start : span.end] == span.text
            assert span.rule in VARIANTS


@pytest.mark.parametrize("language", LANGUAGES)
def test_nearly_nothing_leaks_and_nothing_else_is_found(language: str) -> None:
    identifiers, validators = rules_of_all()
    detector = Detector([item for item in identifiers if item.entity != "PERSON"], language=language, validators=validators)
    values = leaks = alarms = 0
    for example in examples(language, 600, seed=7):
        found = detector.spans(example.text)
        covered = {place for span in found for place in range(span.start, span.end)}
        for span in example.spans:
            values += 1
            leaks += not all(place in covered for place in range(span.start, span.end) if example.text[place].isalnum())
        alarms += sum(not any(span.start < given.end and given.start < span.end for given in example.spans) for span in found)
    assert values >= 600
    assert leaks <= values * 0.005
    assert alarms == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_sentences_are_not_the_examples_of_the_rules(language: str) -> None:
    identifiers, _ = rules_of_all()
    shown = [text for item in identifiers for text in item.examples.match]
    for sentence in material(language).sentences:
        start = sentence.partition("{")[0].strip()
        assert len(start) < 6 or not any(start in text for text in shown), sentence


def test_every_maker_is_named_by_the_material() -> None:
    used = {shape[1:] for language in LANGUAGES for shapes in material(language).values.values() for shape in shapes if shape.startswith("=")}
    assert used == set(MAKERS)


def test_a_variant_or_a_language_that_does_not_exist_is_refused() -> None:
    with pytest.raises(PackError, match="'wrappd' is no variant"):
        next(examples("zh", 1, seed=1, variants=["wrappd"]))
    with pytest.raises(PackError, match="no material for sentences in 'fr'"):
        next(examples("fr", 1, seed=1))


def test_labels_are_written_as_presidio_writes_them() -> None:
    example = next(examples("zh", 1, seed=1, variants=["plain"]))
    (span,) = presidio(example)["spans"]
    assert presidio(example)["full_text"][span["start_position"] : span["end_position"]] == span["entity_value"]


def test_no_general_rule_has_the_border_trap() -> None:
    assert [item.entity for item in rules_of_all()[0] if trap_in(item.pattern)] == []
