from dataclasses import replace
from pathlib import Path

import pytest

from metier.packs import available, load, load_folder, scaffold
from metier.packs.conformance import check, trap_in
from metier.packs.spec import OnDemand


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scaffold.write(tmp_path, "shelf")
    return tmp_path / "metier_shelf"


def change(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text(encoding="utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new), encoding="utf-8")


def texts(folder: Path) -> list[str]:
    return [f"{Path(str(fault.path)).name}:{fault.line} {fault.what}" for fault in check(load_folder(folder))]


@pytest.mark.parametrize("name", [item.name for item in available()])
def test_every_installed_pack_conforms(name: str) -> None:
    assert check(load(name)) == []


def test_a_written_pack_conforms_and_says_what_it_lacks_once_it_does_not(folder: Path) -> None:
    assert texts(folder) == []
    change(folder, "identifiers.yaml", '"型号XM-204518"', '"会员M-204518"')
    change(folder, "quality.yaml", 'match: ["无"]', 'match: ["无无无无无"]')
    change(folder, "guard.yaml", '"可能有位置。"', '"保证可能有位置。"')
    change(folder, "templates.yaml", 'answer: "Twice."}, answer: "Twice."', 'answer: "Twice."}, answer: "Thrice."')
    found = texts(folder)
    assert found == [
        "identifiers.yaml:8 MEMBER_NUMBER: the example is found though it has to be left alone",
        "quality.yaml:4 too_short: the example is not found",
        "guard.yaml:9 promise: the example is found though it has to be left alone",
        "templates.yaml:19 answer-en: the last message is 'Twice.', not 'Thrice.'",
    ]


def test_the_border_trap_is_found_in_every_pattern(folder: Path) -> None:
    change(folder, "identifiers.yaml", "(?<![0-9A-Za-z])M-", r"\bM-")
    change(folder, "guard.yaml", "(?i)guarantee", r"(?i)\w*guarantee")
    found = texts(folder)
    assert r"identifiers.yaml:4 \b sees no border beside Han characters" in found
    assert r"guard.yaml:4 \w sees no border beside Han characters" in found


@pytest.mark.parametrize(("pattern", "trap"), [(r"\bx", r"\b"), (r"a\W", r"\W"), (r"\\b", None), (r"\\\b", r"\b"), (r"[0-9]\d", None)])
def test_an_escaped_backslash_is_no_trap(pattern: str, trap: str | None) -> None:
    assert trap_in(pattern) == trap


def test_languages_that_the_pack_promises_must_be_there(folder: Path) -> None:
    change(folder, "lexicon.yaml", "preferred: {en: renewal, zh: 续期}", "preferred: {en: renewal}")
    change(folder, "controls.yaml", ", zh: 会员编号已替换", "")
    change(folder, "guard.yaml", ', zh: "本回答不构成承诺。"', "")
    change(folder, "templates.yaml", "language: zh", "language: en")
    found = texts(folder)
    assert any("the preferred term is missing in 'zh'" in text for text in found)
    assert any("the title is missing in 'zh'" in text for text in found)
    assert any("promise: what is said is missing in 'zh'" in text for text in found)
    assert any("the task 'answer' has no template in 'zh'" in text for text in found)


def test_names_given_twice_and_names_with_two_codes_are_faults(folder: Path) -> None:
    with (folder / "lexicon.yaml").open("a", encoding="utf-8") as stream:
        stream.write("  - {code: T2, system: shelf, preferred: {en: Extension, zh: 延长}}\n")
    with (folder / "evaluation.yaml").open("a", encoding="utf-8") as stream:
        stream.write("  - {task: answer, output_type: generate_until, metric_list: [{metric: chrf}], metadata: {}}\n")
    found = texts(folder)
    assert any("'Extension' belongs to T1 and to T2" in text for text in found)
    assert sum("'answer' stands 2 times" in text for text in found) == 2
    assert any("the task has no version" in text for text in found)


def test_tasks_need_records_and_choices_need_a_label(folder: Path) -> None:
    change(folder, "evaluation.yaml", "- task: answer", "- task: other")
    assert any("no template makes records of the task 'other'" in text for text in texts(folder))
    change(folder, "evaluation.yaml", "- task: other\n    output_type: generate_until", "- task: answer\n    output_type: multiple_choice")
    assert any("choices need templates that name a label" in text for text in texts(folder))


def test_a_template_may_use_only_fields_that_it_needs(folder: Path) -> None:
    change(folder, "templates.yaml", 'content: "{{ question }}"', 'content: "{{ question }}{{ hint }}"')
    assert sum("'hint' is undefined" in text for text in texts(folder)) == 2


def test_functions_that_nothing_names_are_faults(folder: Path) -> None:
    pack = replace(load_folder(folder), validators={"luhn": str.isdigit}, on_demand=OnDemand(parsers={"json": str}), scorers={"own": float})
    assert [fault.what.split(" is named")[0] for fault in check(pack)] == ["the validator 'luhn'", "the parser 'json'", "the scorer 'own'"]


def test_controls_need_clause_and_check(folder: Path) -> None:
    change(folder, "controls.yaml", 'clause: "House rule 1"', 'clause: " "')
    assert texts(folder) == ["controls.yaml:3 SH-01: the clause is empty"]


def test_a_pattern_without_end_is_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metier.packs.matching.TIMEOUT_SECONDS", 0.05)
    change(folder, "guard.yaml", "'(?i)guarantee|保证'", "'^(?:(?:a|b|ab)*)*[cd]$'")
    change(folder, "guard.yaml", '"We guarantee a place."', f'"{"ab" * 40}e"')
    assert any("did not finish within 0.05 s" in text for text in texts(folder))
