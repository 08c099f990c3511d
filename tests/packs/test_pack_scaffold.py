import tomllib
from pathlib import Path

import pytest

from metier.errors import PackError
from metier.packs import load_folder, scaffold
from metier.packs.conformance import check


@pytest.mark.parametrize(("name", "module"), [("shelf", "metier_shelf"), ("bee-keeping", "metier_bee_keeping"), ("x_1", "metier_x_1")])
def test_a_new_pack_is_installable_and_conforms(tmp_path: Path, name: str, module: str) -> None:
    written = scaffold.write(tmp_path / "new", name)
    project = tomllib.loads((tmp_path / "new" / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["entry-points"]["metier.packs"] == {name: f"{module}.pack:pack"}
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [module]
    pack = load_folder(tmp_path / "new" / module)
    assert pack.facts.name == name
    assert check(pack) == []
    assert all(path.is_file() for path in written)
    assert len((tmp_path / "new" / module / "pack.py").read_text().splitlines()) < 30
    compile((tmp_path / "new" / module / "pack.py").read_text(), "pack.py", "exec")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    scaffold.write(tmp_path, "shelf")
    mine = tmp_path / "metier_shelf" / "guard.yaml"
    mine.write_text("guard: []\n")
    with pytest.raises(PackError, match="there already"):
        scaffold.write(tmp_path, "shelf")
    assert mine.read_text() == "guard: []\n"


@pytest.mark.parametrize("name", ["", "Shelf", "1a", "a b", "../x", "养蜂"])
def test_names_that_packs_cannot_have_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PackError, match="cannot be the name"):
        scaffold.write(tmp_path, name)
    assert list(tmp_path.iterdir()) == []
