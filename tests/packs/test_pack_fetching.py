"""Corpora that a pack fetches: declared parameters, every fault at once, and nothing asked of anybody without permission."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from metier.errors import InputError, MetierError, PackError
from metier.packs import Pack, conformance, fetching, load_folder, scaffold

CORPORA = """corpora:
  - name: marks
    about: {title: Marks, url: 'https://example.org/marks', licence: CC0-1.0, citation: City library}
    files: '*.csv'
    format: csv
    fetch:
      fetcher: marks
      hosts: [example.org]
      parameters:
        - {name: year, about: year of the list, kind: number, required: true, pattern: '2[0-9]{3}', examples: {match: ['2024'], reject: ['24']}}
        - {name: shelves, about: shelves, kind: list, default: 'HIS, ART'}
        - {name: note, about: a note}
  - name: cards
    about: {title: Cards, url: 'https://example.org/cards', licence: CC0-1.0, citation: City library}
    files: '*.csv'
    format: csv
"""
ALLOWED: dict[str, Any] = {"online": True}


def write_marks(values: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    for shelf in values["shelves"]:
        path = folder / f"{shelf}-{values['year']}.csv"
        path.write_text(f"shelf,note\n{shelf},{values['note']}\n", encoding="utf-8")
        yield path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scaffold.write(tmp_path / "pack", "shelf")
    place = tmp_path / "pack" / "metier_shelf"
    (place / "corpora.yaml").write_text(CORPORA, encoding="utf-8")
    (tmp_path / "project" / "data").mkdir(parents=True)
    return place


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tmp_path / "project"


@pytest.fixture
def pack(folder: Path) -> Pack:
    return load_folder(folder, fetchers={"marks": write_marks})


def test_files_are_fetched_with_declared_values_and_the_second_time_they_are_there(pack: Pack, project: Path) -> None:
    given = fetching.assignments(["year=2024", "note = a=b"])
    asked = fetching.request_of(pack, "marks", given, Path("data/marks"), root=project, online=True)
    assert asked.values == {"year": 2024, "shelves": ("HIS", "ART"), "note": "a=b"}
    assert not (project / "data" / "marks").exists()
    found = fetching.fetch(asked)
    assert [path.relative_to(project).as_posix() for path in found.files] == ["data/marks/HIS-2024.csv", "data/marks/ART-2024.csv"]
    assert found.new == 2
    assert found.files[0].read_text(encoding="utf-8").endswith("HIS,a=b\n")
    again = fetching.request_of(pack, "marks", {**given, "shelves": "ART,LAW"}, project / "data" / "marks", root=project, online=True)
    assert (again.path, fetching.fetch(again).new) == ("data/marks", 1)
    assert [corpus.name for corpus in fetching.fetchable(pack)] == ["marks"]
    assert conformance.check(pack) == []


def test_every_fault_is_said_at_once_and_nothing_is_called(folder: Path, project: Path) -> None:
    def never(values: Mapping[str, Any], place: Path) -> Iterator[Path]:
        raise AssertionError("a fetcher was called without permission")

    pack = load_folder(folder, fetchers={"marks": never})
    with pytest.raises(InputError) as raised:
        fetching.request_of(pack, "marks", {"yeer": "2024", "shelves": " , "}, Path("../elsewhere"), root=project)
    said = str(raised.value)
    assert len(raised.value.faults) == 5
    for part in (
        *(
            "set yeer: there is no such parameter",
            "did you mean 'year'? valid: note, shelves, year",
            "set year: is missing",
            "--set year=VALUE: year of the list",
        ),
        *("set shelves: ' , ' is no value for it", "to: is not a folder inside the project", "fetching marks asks example.org", "allow it with --online"),
    ):
        assert part in said
    with pytest.raises(InputError, match="'24' is no value for it\n    -> year of the list; for instance 2024"):
        fetching.request_of(pack, "marks", {"year": "24"}, Path("data/x"), root=project, **ALLOWED)


@pytest.mark.parametrize(
    ("name", "said"), [("mark", "did you mean 'marks'? the pack fetches: marks"), ("zzzz", "valid: marks"), ("cards", "example.org/cards")]
)
def test_a_corpus_that_is_not_fetched_is_answered_with_those_that_are(pack: Pack, project: Path, name: str, said: str) -> None:
    with pytest.raises(InputError) as raised:
        fetching.request_of(pack, name, {}, Path("data/x"), root=project, **ALLOWED)
    assert said in str(raised.value)


def test_a_folder_has_to_lie_in_the_project_and_below_one_that_is_there(pack: Pack, project: Path) -> None:
    (project / "file").write_text("x", encoding="utf-8")
    (project / "away").symlink_to(project.parent)
    for place, said in (
        *(("..", "inside the project"), (".", "inside the project"), ("away/x", "inside the project"), ("/tmp/x", "inside the project")),
        *(("file", "is a file"), ("dta/marks", "the folder above it is not there")),
    ):
        with pytest.raises(InputError, match=said):
            fetching.request_of(pack, "marks", {"year": "2024"}, Path(place), root=project, **ALLOWED)
    with pytest.raises(InputError, match="no such project folder"):
        fetching.request_of(pack, "marks", {"year": "2024"}, Path("data/x"), root=project / "nowhere", **ALLOWED)


def test_a_machine_that_does_not_answer_and_one_that_has_nothing_are_told_apart(folder: Path, project: Path) -> None:
    def breaks(values: Mapping[str, Any], place: Path) -> Iterator[Path]:
        yield from write_marks({**values, "shelves": ["HIS"]}, place)
        raise ConnectionError("no route to example.org\nsecond line")

    for fetcher, kind, said in (
        (breaks, MetierError, "marks could not be fetched: no route to example.org\n    -> what was fetched is kept in data/marks"),
        (lambda values, place: [], InputError, "example.org have nothing of marks that fits\n    -> look at the values: year=2024"),
    ):
        pack = load_folder(folder, fetchers={"marks": fetcher})
        asked = fetching.request_of(pack, "marks", {"year": "2024"}, Path("data/marks"), root=project, **ALLOWED)
        with pytest.raises(kind) as raised:
            fetching.fetch(asked)
        assert said in str(raised.value)
    assert [path.name for path in (project / "data" / "marks").iterdir()] == ["HIS-2024.csv"]


def test_assignments_that_are_none_are_all_told() -> None:
    with pytest.raises(InputError) as raised:
        fetching.assignments(["a", "=b", "c=1", "c=2"])
    assert len(raised.value.faults) == 3


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("reject: ['24']", "reject: ['2025']", "'year': the example is taken though it has to be refused"),
        ("match: ['2024']", "match: ['24']", "'year': the example is not taken"),
        ("required: true,", "required: true, default: '2020',", "is required and has a default"),
        ("default: 'HIS, ART'", "default: ','", "does not take its own default"),
        ("{name: note, about: a note}", "{name: note, about: a note, pattern: x}", "a pattern without examples"),
    ],
)
def test_conformance_runs_the_examples_of_parameters(folder: Path, old: str, new: str, said: str) -> None:
    (folder / "corpora.yaml").write_text(CORPORA.replace(old, new), encoding="utf-8")
    (fault,) = conformance.check(load_folder(folder, fetchers={"marks": write_marks}))
    assert said in fault.what
    assert fault.line is not None


def test_functions_and_patterns_that_are_not_there_are_faults_of_loading(folder: Path) -> None:
    with pytest.raises(PackError, match=r"corpora\[0\].fetch.fetcher: 'marks' is not in the pack's table of fetchers"):
        load_folder(folder)
    (folder / "corpora.yaml").write_text(CORPORA.replace("2[0-9]{3}", "2[0-9"), encoding="utf-8")
    with pytest.raises(PackError, match=r"corpora\[0\].fetch.parameters\[0\].pattern: the pattern is not valid"):
        load_folder(folder, fetchers={"marks": write_marks})
    (folder / "corpora.yaml").write_text(CORPORA, encoding="utf-8")
    unused = load_folder(folder, fetchers={"marks": write_marks, "other": write_marks})
    assert [fault.what for fault in conformance.check(unused)] == ["the fetcher 'other' is named by no YAML file"]
