"""Budgets of the house: sizes, names, imports, languages. What cannot be measured is left to readers."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "src" / "metier"
PACKAGES = [ROOT / "src" / name for name in ("metier", "metier_medical", "metier_finance", "metier_law")]
FILES = [path for package in PACKAGES for path in sorted(package.rglob("*.py"))]
DOMAIN = re.compile(r"\b(medical|medicine|hospital|clinic\w*|patients?|finance|financial|bank|legal|lawyer|statutes?|icd)\b", re.IGNORECASE)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_keeps_to_the_budgets(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert text.count("\n") <= 400
    assert path.stem not in {"utils", "helpers", "misc", "common"}
    assert text.isascii() or not re.search(r"[\u3400-\u9fff\uff00-\uffef]", text), "text that is not English belongs into data files"
    for function in functions(tree):
        place = f"{name(path)}:{function.lineno} {function.name}"
        assert function.end_lineno - function.lineno + 1 <= 60, place
        arguments = [argument.arg for argument in [*function.args.posonlyargs, *function.args.args]]
        if arguments[:1] != ["ctx"]:  # torch dictates the form of autograd functions
            assert len([argument for argument in arguments if argument not in {"self", "cls"}]) <= 6, place
        for node in ast.walk(function):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [module for module in modules if module.split(".")[0].startswith("metier")], f"{place} imports its own package inside a function"
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            fields = [item for item in node.body if isinstance(item, ast.AnnAssign)]
            assert len(fields) <= 16, f"{name(path)}:{node.lineno} {node.name} has {len(fields)} fields"


def test_inheritance_is_one_deep() -> None:
    bases = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]
    allowed = {"MetierError", "InputError", "StoreError", "Settings"}  # the tree of errors, and pydantic's model
    for child, parents in bases.items():
        for parent in parents:
            own = [grandparent for grandparent in bases.get(parent, []) if grandparent in bases and parent not in allowed]
            assert not own, f"{child} inherits from {parent}, which inherits from {own}"


@pytest.mark.parametrize("path", sorted(item for item in CORE.rglob("*") if item.suffix in {".py", ".yaml", ".j2", ".txt"}), ids=name)
def test_the_core_names_no_domain(path: Path) -> None:
    found = [f"{number}: {line.strip()}" for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if DOMAIN.search(line)]
    assert not found


def test_importing_metier_is_quick_and_loads_nothing_heavy() -> None:
    code = "import sys, metier; print(sorted({'torch', 'transformers', 'pyarrow', 'pydantic', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_readme_tree_is_the_tree_on_the_disk() -> None:
    for readme in ("README.md", "README.zh.md"):
        text = (ROOT / readme).read_text(encoding="utf-8")
        shown = {match.rstrip("/") for match in re.findall(r"^(src/\S+?)/?\s{2,}\S", text, re.MULTILINE)}
        rooms = {name(path) for path in CORE.iterdir() if path.is_dir() and path.name not in {"__pycache__", "data"}}
        packs = {name(path) for path in PACKAGES[1:]}
        assert rooms | packs <= shown, f"{readme} does not show {sorted((rooms | packs) - shown)}"
        assert all((ROOT / entry).exists() for entry in shown), f"{readme} shows what is not there"


def test_nothing_is_pickled_and_no_mock_is_used() -> None:
    for path in [*FILES, *sorted((ROOT / "tests").rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [module for module in modules if module in {"pickle", "dill", "unittest.mock", "mock"}], name(path)
