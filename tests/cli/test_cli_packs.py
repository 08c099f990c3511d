"""`metier packs`: listing, checking by name and by folder, writing a new one."""

from __future__ import annotations

from pathlib import Path

from cli.conftest import Invoke


def test_list_names_the_installed_packs(invoke: Invoke) -> None:
    found = {item["name"]: item for item in invoke("packs", "list", "--json").document}
    assert found["example"]["target"] == "metier_example.pack:pack"
    shown = invoke("packs", "list").out
    assert all(name in shown for name in found)


def test_check_takes_a_name_or_a_folder(invoke: Invoke) -> None:
    by_name = invoke("packs", "check", "example")
    by_folder = invoke("packs", "check", Path(__file__).parents[1] / "example_pack")
    assert by_name.code == by_folder.code == 0
    assert by_name.out == by_folder.out
    assert "4 templates" in by_name.out
    assert "zh: 养蜂" in by_name.out


def test_a_new_pack_conforms_until_an_example_is_broken(tmp_path: Path, invoke: Invoke) -> None:
    written = invoke("packs", "new", tmp_path / "tea")
    assert written.code == 0
    assert invoke("packs", "check", tmp_path / "tea").out.startswith("tea ")
    templates = tmp_path / "tea" / "metier_tea" / "templates.yaml"
    templates.write_text(
        templates.read_text(encoding="utf-8").replace('answer: "Twice."}, answer: "Twice."', 'answer: "Twice."}, answer: "Once."'), encoding="utf-8"
    )
    broken = invoke("packs", "check", tmp_path / "tea")
    assert broken.code == 2
    assert "templates.yaml:" in broken.err


def test_a_folder_without_a_pack_and_an_unknown_name_are_refused(tmp_path: Path, invoke: Invoke) -> None:
    empty = invoke("packs", "check", tmp_path)
    assert (empty.code, "no pack.yaml in it" in empty.err) == (2, True)
    unknown = invoke("packs", "check", "exampel")
    assert (unknown.code, "did you mean 'example'?" in unknown.err) == (2, True)
