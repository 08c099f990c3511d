"""What a real llama.cpp makes of a GGUF file: asked of a process of its own, by any Python that has the package llama-cpp-python.

The process runs `llamachild.py` beside this module, which says what is asked and how; a library that ends its process, and the memory
that it takes, are the child's own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metier.errors import ModelError
from metier.models.parity import Golden

__all__ = ["Question", "Runtime", "ask", "at_hand", "python"]

_CHILD = Path(__file__).with_name("llamachild.py")
_SHOWN = 600


@dataclass(frozen=True, slots=True)
class Question:
    """What llama.cpp is asked of a file: tokens of texts, logits at the places of rows, greedy continuations of their prompts, renderings of conversations
    (as templates take messages), each up to where the next answer begins.

    `most` tokens are continued at most, and `stops` end one. `exact` asks for attention and its cache in fp32, where llama.cpp's own default is fp16.
    """

    texts: Sequence[str] = ()
    rows: Sequence[Golden] = ()
    conversations: Sequence[Sequence[Mapping[str, str]]] = ()
    most: int = 0
    stops: frozenset[int] = frozenset()
    exact: bool = False
    threads: int = field(default_factory=torch.get_num_threads)

    def as_facts(self, path: Path) -> dict[str, Any]:
        """Return it in the form that the child reads."""
        prompts = [{"prompt": list(row.prompt), "most": self.most, "stops": sorted(self.stops)} for row in self.rows] if self.most else []
        return {
            "model": str(path),
            "texts": list(self.texts),
            "rows": [{"tokens": list(row.tokens), "first": row.first} for row in self.rows],
            "greedy": prompts,
            "conversations": [list(turns) for turns in self.conversations],
            "exact": self.exact,
            "threads": self.threads,
        }


@dataclass(frozen=True, slots=True)
class Runtime:
    """What llama.cpp answered. `version` is the binding's; `logits` [places, vocabulary] are those of each row, read from a file of the caller's."""

    version: str
    system: str
    template: str | None
    rendered: Sequence[str]
    tokens: Sequence[Sequence[int]]
    texts: Sequence[str]
    answers: Sequence[Sequence[int]]
    logits: Sequence[torch.Tensor]


def at_hand() -> bool:
    """Return whether the package llama-cpp-python is installed beside Metier."""
    return find_spec("llama_cpp") is not None


def python() -> Path:
    """Return the Python that Metier runs in."""
    return Path(sys.executable)


def ask(path: Path, question: Question, *, interpreter: Path | None = None) -> Runtime:
    """Return what llama.cpp makes of a file. Raises ModelError, with what it said, if it does not load or read it."""
    with tempfile.TemporaryDirectory(prefix="metier-llama-") as folder:
        asked, answer, numbers = (Path(folder) / name for name in ("question.json", "answer.json", "logits.f32"))
        asked.write_text(json.dumps(question.as_facts(path.absolute())), encoding="utf-8")
        command = [str(interpreter or python()), "-I", str(_CHILD), str(asked), str(answer), str(numbers)]
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - our own program, and the user's own Python
        if done.returncode or not answer.is_file():
            said = done.stderr.decode(errors="replace").strip()[-_SHOWN:] or f"exit code {done.returncode}"
            raise ModelError(f"llama.cpp does not take {path.name}: {said}\n    -> export with --format merged, and report this base model")
        said = json.loads(answer.read_bytes())
        logits = list(_logits(numbers, question.rows, said.pop("vocabulary")))
    return Runtime(**said, logits=logits)


def _logits(path: Path, rows: Sequence[Golden], vocabulary: int) -> Iterator[torch.Tensor]:
    with path.open("rb") as stream:
        for row in rows:
            places = len(row.tokens) - row.first
            found = np.fromfile(stream, dtype="<f4", count=places * vocabulary)
            yield torch.from_numpy(found.astype(np.float32)).view(places, vocabulary)
