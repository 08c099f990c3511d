"""Commands that need no model do not load torch; every command's help names its options."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from metier.cli.main import app

HEAVY = ("torch", "transformers", "pyarrow", "scipy", "sklearn", "matplotlib", "accelerate")

HELP = {
    (): ["--version", "init", "run", "data", "train", "evaluate", "chat", "audit", "packs", "vault", "gateway", "demo", "doctor"],
    ("init",): ["--pack", "--name", "FOLDER"],
    ("run",): ["--json", "--dry-run", "--online", "--processes", "PROJECT"],
    ("train",): ["--json", "--dry-run", "--online", "--processes", "PROJECT"],
    ("evaluate",): ["--json", "--dry-run", "--online", "--processes", "PROJECT"],
    ("plan",): [
        "--bases",
        "--gpu",
        "--price",
        "--method",
        "--rank",
        "--general",
        "--hours",
        "--target",
        "--items",
        "--shots",
        "--dry-run",
        "--json",
        "PROJECT",
    ],
    ("data",): ["fetch", "build", "inspect", "preview", "deidentify", "policies", "guard"],
    ("data", "fetch"): ["--pack", "--set", "--to", "--project", "--online", "--dry-run", "--json", "NAME"],
    ("data", "deidentify"): ["--field", "--out", "--policy", "--language", "--pack", "--key", "--spans", "--vault", "--preview", "--processes", "--json"],
    ("data", "policies"): ["--diff", "--field", "--rows", "--json"],
    ("data", "guard"): ["--allow", "--pack", "--score", "--json", "FILE"],
    ("vault",): ["reveal", "rotate", "erase", "status"],
    ("vault", "reveal"): ["--key", "--name", "--purpose", "--file", "--out", "--project", "--json"],
    ("vault", "rotate"): ["--key", "--name", "--reencrypt", "--project"],
    ("vault", "erase"): ["--subject", "--key", "--name", "--purpose", "--search", "--project", "--json"],
    ("vault", "status"): ["--key", "--json"],
    ("gateway",): ["--upstream", "--host", "--port", "--language", "--pack"],
    ("data", "build"): ["--json", "--dry-run", "--processes", "PROJECT"],
    ("data", "inspect"): ["--json", "--count", "--split", "--reason", "--seed"],
    ("data", "preview"): ["--json", "--count", "--split", "--seed", "--tokens"],
    ("chat",): ["--question", "--base-only", "--expert-only", "--temperature", "--max-new-tokens", "--seed", "--json"],
    ("audit",): ["verify", "head", "export", "proof"],
    ("audit", "verify"): ["--public-key", "--key-id", "--head", "--json", "PATH"],
    ("audit", "head"): ["--restore", "--json", "PROJECT"],
    ("audit", "export"): ["--json", "FILE", "PROJECT"],
    ("audit", "proof"): ["--json", "ENTRY", "FILE", "PROJECT"],
    ("packs",): ["list", "check", "new"],
    ("packs", "list"): ["--json"],
    ("packs", "check"): ["NAME-OR-FOLDER"],
    ("packs", "new"): ["--name", "FOLDER"],
    ("export",): ["--format", "--out", "--adapter", "--type", "--prompts", "--unreleased", "--dry-run", "--json", "PROJECT"],
    ("import-config",): ["--out", "--from", "--pack", "--name", "--json", "FILE"],
    ("demo",): ["--seed", "--scale", "--demo", "--json", "--processes", "FOLDER"],
    ("doctor",): ["--json"],
}


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help_names_every_option(command: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*command, "--help"], terminal_width=160)
    assert shown.exit_code == 0
    assert [name for name in HELP[command] if name not in shown.output] == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--help"], 0), (["--version"], 0), (["packs", "list"], 0), (["init", "new", "--pack", "example", "--name", "hives"], 0), (["run", "broken"], 2)],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_light_commands_load_nothing_heavy(tmp_path: Path, arguments: list[str], code: int) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "metier.yaml").write_text("metier: 1\nprojct: hives\n", encoding="utf-8")
    program = f"""
import sys
from metier.cli.main import main
try:
    main({arguments!r})
except SystemExit as ended:
    print("ended", ended.code, [name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.splitlines()[-1] == f"ended {code} []"
