from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from metier.config import Settings, load_yaml, parse, settings_digest
from metier.errors import ConfigError, Fault, nearest


class Inner(Settings):
    threshold: float = 0.8
    names: tuple[str, ...] = ()


class Outer(Settings):
    project: str
    count: int = 1
    rows: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    inner: Inner = Inner()
    items: tuple[Inner, ...] = ()


def read(tmp_path: Path, text: str) -> Outer:
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return parse(load_yaml(path), Outer)


def faults(tmp_path: Path, text: str) -> list[Fault]:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    return list(caught.value.faults)


def test_what_is_not_given_has_its_default(tmp_path: Path) -> None:
    assert read(tmp_path, "project: 高血压\nitems: [{names: [a, b]}]\n") == Outer(project="高血压", items=(Inner(names=("a", "b")),))


def test_every_fault_is_reported_at_once_with_line_key_and_remedy(tmp_path: Path) -> None:
    found = faults(tmp_path, "projekt: x\ncount: three\ninner:\n  treshold: 0.5\nitems:\n  - names: [1]\n")
    assert [(fault.line, fault.key) for fault in found] == [(1, "project"), (2, "count"), (4, "inner.treshold"), (6, "items[0].names[0]"), (1, "projekt")]
    texts = [str(fault) for fault in found]
    assert "did you mean 'threshold'?" in texts[2]
    assert "did you mean 'project'?" in texts[4]
    assert all("settings.yaml:" in text for text in texts)


def test_what_may_be_of_several_forms_gets_one_line(tmp_path: Path) -> None:
    (found,) = faults(tmp_path, "project: x\nrows: 0\n")
    assert (found.line, found.key) == (2, "rows")
    assert found.what == "input should be greater than or equal to 1, or input should be 'auto' (it is 0)"
    assert [fault.key for fault in faults(tmp_path, "project: x\nrows: 0\ncount: three\n")] == ["count", "rows"]


@pytest.mark.parametrize(
    ("text", "line"), [("project: x\ncount: '3'\n", 2), ("project: x\ncount: 1.5\n", 2), ("project: 3\n", 1), ("project: x\ncount: true\n", 2)]
)
def test_a_wrong_type_is_never_converted(tmp_path: Path, text: str, line: int) -> None:
    assert [fault.line for fault in faults(tmp_path, text)] == [line]


def test_a_small_number_may_be_written_with_an_exponent_and_a_code_stays_text(tmp_path: Path) -> None:
    assert read(tmp_path, "project: 1E50\ninner: {threshold: 1e-4, names: ['1e-4', 5e3]}\n") == Outer(
        project="1E50", inner=Inner(threshold=0.0001, names=("1e-4", "5e3"))
    )


def test_a_key_that_stands_twice_is_a_fault(tmp_path: Path) -> None:
    assert "stands twice" in str(faults(tmp_path, "project: a\nproject: b\n")[0])


@pytest.mark.parametrize("text", ["project: [a\n", "a: b: c\n", "\tproject: a\n", "project: !!python/object:os.system x\n"])
def test_broken_or_executable_yaml_is_refused_with_a_message(tmp_path: Path, text: str) -> None:
    assert "not valid YAML" in str(faults(tmp_path, text)[0])


def test_a_list_where_settings_are_expected_is_a_fault_and_no_crash(tmp_path: Path) -> None:
    assert faults(tmp_path, "- a\n- b\n")
    assert faults(tmp_path, "just text\n")


def test_missing_files_folders_and_foreign_bytes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="folder"):
        load_yaml(tmp_path)
    (tmp_path / "gbk.yaml").write_bytes("project: 高血压".encode("gb18030"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_yaml(tmp_path / "gbk.yaml")


def test_the_digest_follows_the_values_and_not_how_they_were_written(tmp_path: Path) -> None:
    assert settings_digest(read(tmp_path, "project: a\ncount: 1\n")) == settings_digest(read(tmp_path, "{project: a}\n"))
    assert settings_digest(Outer(project="a")) != settings_digest(Outer(project="a", count=2))


def test_the_nearest_valid_name_is_offered_and_all_of_them_if_none_is_near() -> None:
    assert nearest("licence_", ["licence", "path"]) == "did you mean 'licence'?"
    assert nearest("zzz", ["path", "licence"]) == "valid: licence, path"
