from metier.packs import available, load
from metier.packs.conformance import check
from metier.privacy import Surrogates, deidentify_texts, rules_of


def test_a_pack_outside_the_repository_is_found_loaded_and_conforms() -> None:
    assert [item.distribution for item in available() if item.name == "example"] == ["metier-example-pack"]
    assert check(load("example")) == []


def test_its_identifiers_join_the_general_ones() -> None:
    identifiers, validators = rules_of(load("example"))
    result = deidentify_texts(
        ["蜂箱HV-12036，电话13812345678"], identifiers=identifiers, validators=validators, language="zh", surrogates=Surrogates(b"k" * 32)
    )
    assert [span.type for span in result.spans[0]] == ["HIVE_NUMBER", "PHONE_NUMBER"]


def test_its_functions_are_in_its_tables() -> None:
    pack = load("example")
    assert pack.parsers["hive_count"]("five: 5") == 5
    assert pack.scorers["count_match"]("5 frames", {"target": "5"}) == 1.0
    assert pack.scorers["count_match"]("none", {"target": "5"}) == 0.0
