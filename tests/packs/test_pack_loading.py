from importlib.metadata import entry_points
from pathlib import Path

import pytest

from metier.errors import PackError
from metier.packs import available, load, load_folder, scaffold
from metier.packs.loader import folder_digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scaffold.write(tmp_path, "shelf")
    return tmp_path / "metier_shelf"


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")


def test_all_faults_of_all_files_come_at_once_with_file_and_line(folder: Path) -> None:
    write(
        folder,
        "identifiers.yaml",
        "identifiers:\n  - entity: A_B\n    pattern: '(['\n    validator: lun\n    examples: {match: [a], reject: [b]}\n  - entitty: X\n",
    )
    write(
        folder,
        "templates.yaml",
        "templates:\n  - name: t\n    task: t\n    language: en\n    needs: [q]\n    messages:\n"
        "      - {role: user, content: '{{ q'}\n      - {role: assistant, content: a}\n    examples: [{given: {q: 1}, answer: a}]\n",
    )
    write(folder, "quality.yaml", "quality: 3\n")
    write(folder, "guards.yaml", "guard: []\n")
    with pytest.raises(PackError) as caught:
        load_folder(folder, validators={"luhn": str.isdigit})
    found = {(Path(str(fault.path)).name, fault.line, fault.key) for fault in caught.value.faults}
    assert ("identifiers.yaml", 3, "identifiers[0].pattern") in found
    assert ("identifiers.yaml", 4, "identifiers[0].validator") in found
    assert ("identifiers.yaml", 6, "identifiers[1].entitty") in found
    assert ("templates.yaml", 7, "templates[0].messages[0].content") in found
    assert any(name == "quality.yaml" for name, _, _ in found)
    by_key = {fault.key: fault for fault in caught.value.faults}
    assert by_key["identifiers[0].validator"].remedy == "did you mean 'luhn'?"
    assert by_key["identifiers[1].entitty"].remedy == "did you mean 'entity'?"
    assert [fault.remedy for fault in caught.value.faults if str(fault.path).endswith("guards.yaml")] == ["did you mean 'guard.yaml'?"]


def test_a_group_that_the_pattern_lacks_and_an_unknown_parser_are_faults(folder: Path) -> None:
    write(folder, "identifiers.yaml", "identifiers:\n  - {entity: A, pattern: 'a', group: name, examples: {match: [a], reject: [b]}}\n")
    write(
        folder,
        "evaluation.yaml",
        "tasks:\n  - {task: answer, output_type: generate_until, parser: code, metric_list: [{metric: chrf}], metadata: {version: 1}}\n",
    )
    with pytest.raises(PackError) as caught:
        load_folder(folder)
    assert [fault.key for fault in caught.value.faults] == ["identifiers[0].group", "tasks[0].parser"]


def test_a_folder_that_is_not_there_and_one_without_pack_yaml_are_faults(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(PackError, match="no such folder"):
        load_folder(tmp_path / "nowhere")
    (folder / "pack.yaml").unlink()
    with pytest.raises(PackError, match="no such file"):
        load_folder(folder)


def test_files_may_be_left_out(folder: Path) -> None:
    for name in ("lexicon", "controls", "guard", "quality"):
        (folder / f"{name}.yaml").unlink()
    pack = load_folder(folder)
    assert (pack.lexicon, pack.controls, pack.guard, pack.quality) == ((), (), (), ())
    assert [task.task for task in pack.tasks] == ["answer"]


def test_the_digest_changes_with_any_file_and_not_with_caches(folder: Path) -> None:
    before = folder_digest(folder)
    (folder / "__pycache__").mkdir()
    write(folder / "__pycache__", "pack.cpython-311.pyc", "x")
    assert folder_digest(folder) == before
    (folder / "fixtures").mkdir()
    write(folder / "fixtures", "rows.jsonl", "{}\n")
    after = folder_digest(folder)
    assert after != before
    write(folder, "pack.py", "# changed\n")
    assert folder_digest(folder) != after
    assert load_folder(folder).digest == folder_digest(folder)


def test_installed_packs_are_listed_without_being_imported() -> None:
    names = [item.name for item in available()]
    assert {"finance", "law", "medical"} <= set(names)
    assert names == sorted(names)
    assert {item.distribution for item in available() if item.name == "medical"} == {"metier"}


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(PackError, match="did you mean 'medical'"):
        load("medcial")


def test_a_pack_that_cannot_be_imported_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "broken_pack-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-pack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[metier.packs]\nbroken = broken_pack_module:pack\nnopack = nopack_module:pack\nmisnamed = misnamed_module:pack\n")
    (tmp_path / "broken_pack_module.py").write_text("import a_module_that_is_not_there\n")
    (tmp_path / "nopack_module.py").write_text("pack = 3\n")
    (tmp_path / "misnamed_module.py").write_text("from metier_law.pack import pack\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert entry_points(group="metier.packs", name="broken")
    with pytest.raises(PackError, match=r"broken-pack 1\.0.*a_module_that_is_not_there"):
        load("broken")
    with pytest.raises(PackError, match="is int, not a Pack"):
        load("nopack")
    with pytest.raises(PackError, match="calls itself 'law'"):
        load("misnamed")
