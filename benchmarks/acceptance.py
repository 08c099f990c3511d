"""The user guide's three projects on published corpora, small enough for a processor: whether the expert beats the base.

    python benchmarks/acceptance.py --data FOLDER --work FOLDER [--tokens 60000] [--only consultations]

`--data` holds `medical/toyhom-im-sample`, `medical/medquad` and `law/lecoqa` as published. Each project is the one of the
guide for own data, with the training cut to about `--tokens` tokens and 40 items a task. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

COMMON = """
base: {base}
training: {{epochs: {epochs}, adaptation: {{rank: 16}}, learning_rate: 0.001, batch: {{maximum_tokens: 512}}, validation: {{limit: 32, times: 2}}}}
evaluation: {{tasks: [pack, held-out], limit: 40, free_text_limit: 16, max_new_tokens: 96}}
"""

PROJECTS = {
    "consultations": """metier: 1
project: online-consultations
pack: medical
languages: [zh]
sources:
  - path: data/*.csv
    licence: MIT
    basis: published data set
    language: zh
    columns: {department: department, title: title, question: ask, answer: answer}
    templates: [consultation-chat-zh, department-zh]
""",
    "health-questions": """metier: 1
project: health-questions
pack: medical
languages: [en]
sources:
  - path: data/**/*.xml
    format: xml
    rows: QAPair
    licence: CC BY 4.0
    basis: published data set
    language: en
    columns: {question: Question, answer: Answer, kind: "Question@qtype"}
    templates: [consultation-chat-en]
""",
    "legal-questions": """metier: 1
project: legal-questions
pack: law
languages: [zh]
sources:
  - path: data/*.json
    licence: MIT
    basis: published data set
    language: zh
    columns: {question: 问题, answer: 答案文本}
    templates: [question-zh]
""",
}

TOKENS = {"consultations": 1_700_000, "health-questions": 120_000, "legal-questions": 330_000}
"""About how many tokens of each training split fit the limit: what `--tokens` is a share of."""


def bring(name: str, data: Path, folder: Path) -> None:
    """Put a corpus into a project's data folder, as published."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "consultations":
        shutil.copy(next((data / "medical" / "toyhom-im-sample").glob("*.csv")), folder)
    elif name == "legal-questions":
        shutil.copy(data / "law" / "lecoqa" / "train.json", folder)
    else:
        for archive in ("1_CancerGov_QA.tar.gz", "9_CDC_QA.tar.gz"):
            with tarfile.open(data / "medical" / "medquad" / archive) as tar:
                tar.extractall(folder, filter="data")


def run(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write one project, run it and return its outcome."""
    root = arguments.work / name
    bring(name, arguments.data, root / "data")
    epochs = round(min(1.0, arguments.tokens / TOKENS[name]), 4)
    (root / "metier.yaml").write_text(PROJECTS[name] + COMMON.format(base=arguments.base, epochs=epochs), encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "metier.cli.main", "run", str(root), "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} ended with {done.returncode}")
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"dataset": outcome["dataset"], "run": outcome["run"], "tasks": outcome["evaluation"]["tasks"], "seconds": outcome["seconds"]}


def main() -> None:
    """Run the projects one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=60_000)
    parser.add_argument("--base", default="bundled/gemma-3-270m")
    parser.add_argument("--only", choices=sorted(PROJECTS))
    arguments = parser.parse_args()
    ours = {name: run(name, arguments) for name in PROJECTS if arguments.only in (None, name)}
    machine = {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
    print(json.dumps({"benchmark": "acceptance", "machine": machine, "ours": ours, "peers": {}, "ratios": {}}, ensure_ascii=False))


if __name__ == "__main__":
    main()
