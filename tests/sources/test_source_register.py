"""The register says on what terms data is held, what of that is missing, and refuses what has run out."""

from datetime import date

import pytest
from pydantic import ValidationError

from metier.errors import SourceError
from metier.sources import SourceSettings, Terms, check_register, read
from metier.sources.register import licence_kind
from metier.sources.terms import categories, expiry

FULL = {
    **{"reference": "consent-2026-03", "owner": "Records office", "purpose": "triage advice", "collected": "2026-03-01", "retention": "P5Y"},
    "sensitive": {"question": "health", "name": "identity"},
}
TODAY = date(2026, 11, 25)


def settings(**values):
    return SourceSettings(path="a.jsonl", **{"licence": "CC-BY-4.0", **values})


@pytest.fixture
def root(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n', encoding="utf-8")
    return tmp_path


def test_a_source_that_says_everything_has_no_finding(root):
    source = settings(basis=FULL)
    assert check_register([source], today=TODAY) == []
    (entry,) = read([source], root, today=TODAY).register
    assert {name: entry[name] for name in ("basis", "owner", "purpose", "collected", "retention", "expires", "licence_kind", "warnings")} == {
        "basis": "consent-2026-03",
        "owner": "Records office",
        "purpose": "triage advice",
        "collected": "2026-03-01",
        "retention": "P5Y",
        "expires": "2031-03-01",
        "licence_kind": "spdx",
        "warnings": [],
    }
    assert entry["sensitive"]["question"] == {"category": "health", "PIPL": "28", "GDPR": "9"}


def test_everything_that_is_not_said_is_a_finding_with_its_key_and_remedy(root):
    found = check_register([settings(basis=FULL), settings()], today=TODAY)
    assert [finding.key for finding in found] == [f"sources[1].basis.{name}" for name in ("reference", "owner", "purpose", "retention", "sensitive")]
    assert {finding.kind for finding in found} == {"missing"}
    assert all(finding.remedy.startswith("write basis:") for finding in found)
    assert read([settings()], root, today=TODAY).register[0]["warnings"] == [finding.what for finding in found]


def test_no_sensitive_columns_is_something_that_can_be_said():
    assert [finding.key for finding in check_register([settings(basis={**FULL, "sensitive": {}})])] == []


def test_the_basis_may_be_its_reference_alone():
    assert settings(basis="contract 12").basis == Terms(reference="contract 12")


@pytest.mark.parametrize("today", [date(2031, 3, 2), date(2040, 1, 1)])
def test_data_past_its_retention_is_refused_and_found(root, today):
    source = settings(basis=FULL)
    with pytest.raises(SourceError) as caught:
        read([source], root, today=today)
    (fault,) = caught.value.faults
    assert fault.key == "sources[0].basis.retention"
    assert f"until 2031-03-01, and today is {today}" in fault.what
    assert [finding.kind for finding in check_register([source], today=today)] == ["expired"]


def test_on_its_last_day_data_is_still_read(root):
    assert len(list(read([settings(basis=FULL)], root, today=date(2031, 3, 1)))) == 1


@pytest.mark.parametrize(
    ("retention", "collected", "day"),
    [
        ("2031-12-31", None, date(2031, 12, 31)),
        ("P1M", date(2024, 1, 31), date(2024, 2, 29)),
        ("P1Y", date(2024, 2, 29), date(2025, 2, 28)),
        ("P18M", date(2026, 3, 1), date(2027, 9, 1)),
        ("P90D", date(2026, 3, 1), date(2026, 5, 30)),
        ("P1Y2M3W4D", date(2026, 1, 1), date(2027, 3, 26)),
    ],
)
def test_retention_is_a_day_or_a_period_from_the_day_of_collection(retention, collected, day):
    assert expiry(retention, collected) == day


@pytest.mark.parametrize(
    "values",
    [
        {"retention": "P5Y"},
        {"retention": "five years"},
        {"retention": "P"},
        {"retention": "P9999Y", "collected": "2026-01-01"},
        {"retention": "2026-13-01"},
        {"collected": "yesterday"},
        {"sensitive": {"x": "secret"}},
        {"owners": "x"},
    ],
)
def test_terms_that_say_nothing_clear_are_refused(values):
    with pytest.raises(ValidationError):
        Terms(**values)


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("MIT", ("spdx", None)),
        ("Apache-2.0 OR (MIT AND CC-BY-4.0)", ("spdx", None)),
        ("GPL-2.0-only WITH Classpath-exception-2.0", ("spdx", None)),
        ("LicenseRef-hospital-7", ("spdx", None)),
        ("internal", ("named", None)),
        ("CC BY 4.0", ("named", "CC-BY-4.0")),
        ("apache 2.0", ("named", "Apache-2.0")),
        ("mit", ("named", "MIT")),
    ],
)
def test_a_licence_is_an_spdx_identifier_or_a_name_and_misspellings_are_told(licence, kind):
    assert licence_kind(licence) == kind


def test_a_misspelt_identifier_is_a_finding():
    (finding,) = check_register([settings(licence="CC BY 4.0", basis=FULL)])
    assert (finding.kind, finding.remedy) == ("unknown", "did you mean 'CC-BY-4.0'?")


def test_the_categories_name_every_kind_of_both_laws():
    named = categories()
    assert {name for name, clauses in named.items() if clauses.get("GDPR") == "9"} == {
        *("biometric", "religion", "health", "origin", "politics", "union", "genetic", "sex-life")
    }
    assert {name for name, clauses in named.items() if clauses.get("PIPL", "").startswith("28")} == {
        *("biometric", "religion", "specific-identity", "health", "account", "whereabouts", "minors")
    }


def test_a_licence_is_required_except_for_a_corpus_that_brings_its_own():
    with pytest.raises(ValidationError, match="licence"):
        SourceSettings(path="a.jsonl")
    assert SourceSettings(path="a.jsonl", corpus="cap").licence == ""
