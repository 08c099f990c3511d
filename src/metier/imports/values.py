"""Values of other tools' keys as values of this project's settings. A value without a place raises `NoPlaceError`, which says why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["CONVERSIONS", "Case", "NoPlaceError", "Same"]

_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant", "constant_with_warmup": "constant"}
_METHODS = {"lora": "lora", "qlora": "qlora", "full": "full", "freeze": "partial"}


class NoPlaceError(Exception):
    """A value has no place here; the text says why, or what to do instead."""


class Same(Exception):
    """A value asks for what is done anyway; the text says what that is."""


@dataclass(frozen=True, slots=True)
class Case:
    """One value with what stands around it: all values of the file by key, the file's folder and the folder of the project file to be."""

    value: Any
    values: Mapping[str, Any]
    source: Path
    target: Path


Conversion: TypeAlias = Callable[[Case], Any]


def _number(case: Case) -> float | int:
    value = case.value
    if isinstance(value, str):
        # 2e-5 is text in YAML 1.1, and their authors mean a number.
        try:
            value = float(value)
        except ValueError:
            raise NoPlaceError(f"{case.value!r} is no number") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NoPlaceError(f"{case.value!r} is no number")
    return value


def _whole(case: Case) -> int:
    value = _number(case)
    if value != int(value):
        raise NoPlaceError(f"{case.value!r} is a share there; here it is a whole number")
    return int(value)


def _share(case: Case) -> float:
    value = _number(case)
    if not 0 <= value < 1:
        raise NoPlaceError(f"{case.value!r} is a number of records there; here it is a share between 0 and 1")
    return float(value)


def _base(case: Case) -> str:
    path = case.source / str(case.value)
    return _place(path, case.target) if path.is_dir() else str(case.value)


def _place(path: Path, target: Path) -> str:
    """Return a path as a project file names it: relative where it lies inside the project, absolute elsewhere."""
    real, root = path.resolve(), target.resolve()
    return real.relative_to(root).as_posix() if real.is_relative_to(root) else real.as_posix()


def _method(case: Case) -> str:
    if case.value not in _METHODS:
        raise NoPlaceError(f"the method {case.value!r} is not one of this project's")
    return _METHODS[case.value]


def _flag(method: str) -> Conversion:
    def convert(case: Case) -> str:
        if not case.value:
            raise Same("off, as here")
        return method

    return convert


def _bits(case: Case) -> str:
    if case.value != 4:
        raise NoPlaceError(f"weights in {case.value} bits are not trained on; qlora packs them in 4")
    return "qlora"


def _quantization(case: Case) -> str:
    if case.value == "none":
        return "lora"
    if case.value == "4bit":
        return "qlora"
    raise NoPlaceError(f"weights packed as {case.value!r} are not trained on; qlora packs them in 4 bits")


def _targets(case: Case) -> Any:
    value = case.value
    if value in ("all", "all-linear"):
        return "all-linear"
    if value == "auto":
        return ["q_proj", "v_proj"]
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name.replace("_", "").isalnum() for name in names):
        raise NoPlaceError(f"{value!r} is a pattern; here targets are the last parts of layer names, or all-linear")
    return names


def _all_linear_if(case: Case) -> str:
    if not case.value:
        raise Same("off: the layers are named one by one")
    return "all-linear"


def _schedule(case: Case) -> str:
    if case.value not in _SCHEDULES:
        raise NoPlaceError(f"the schedule {case.value!r} is not one of cosine, linear and constant")
    return _SCHEDULES[case.value]


def _warmup_steps(case: Case) -> float:
    value, steps = _number(case), case.values.get("max_steps")
    if value < 1:
        return float(value)
    if isinstance(steps, int) and steps > 0:
        return min(1.0, value / steps)
    raise NoPlaceError(f"{value:g} steps: here the warm-up is a share of all steps, whose number depends on the data")


def _betas(case: Case) -> list[float]:
    found = [case.values.get("adam_beta1", 0.9), case.values.get("adam_beta2", 0.999)]
    return [float(_number(Case(0.9 if value is None else value, {}, case.source, case.target))) for value in found]


def _batch(case: Case) -> int:
    """Rows of a step, where rows mean the same: packed rows of a known length."""
    values = case.values
    size = next((values[key] for key in ("per_device_train_batch_size", "micro_batch_size", "training.batch_size") if values.get(key) is not None), 1)
    steps = next((values[key] for key in ("gradient_accumulation_steps", "training.gradient_accumulation_steps") if values.get(key) is not None), 1)
    if not isinstance(size, int) or not isinstance(steps, int):
        raise NoPlaceError(f"{case.value!r} is found by trying there; here a step holds training.batch.rows x row_tokens tokens, whatever the memory")
    if any(values.get(key) for key in ("packing", "neat_packing", "sample_packing", "training.packing")):
        return size * steps
    raise NoPlaceError(
        f"{size} x {steps} examples make a step there; here rows are packed, and a step holds rows x row_tokens tokens, however many examples that is: "
        f"with examples of n tokens, row_tokens: 1024 and rows: {size * steps} n / 1024 come to the same (metier data inspect shows lengths)"
    )


def _order_if(case: Case) -> str:
    if not case.value:
        raise Same("off: another order is drawn in each epoch, as here")
    return "dataset"


def _order_unless(case: Case) -> str:
    if case.value:
        raise Same("on: another order is drawn in each epoch, as here")
    return "dataset"


def _bf16(case: Case) -> str:
    if case.value is False:
        raise Same("off: the format is chosen by what this machine multiplies faster")
    return "auto" if case.value in ("auto", "full") else "bfloat16"


def _fp32(case: Case) -> str:
    if not case.value:
        raise Same("off, as here")
    return "float32"


def _evals_per_epoch(case: Case) -> int:
    epochs = case.values.get("num_epochs")
    return round(_number(case) * float(1 if epochs is None else epochs))


def _stage(case: Case) -> Any:
    if case.value == "sft":
        raise Same("conversations are taught, which is what this project does")
    if case.value == "pt":
        raise NoPlaceError("'pt': plain texts are taught where prepare.compose.text is keep; set it")
    raise NoPlaceError(f"{case.value!r}: conversations and plain texts are taught, nothing else")


CONVERSIONS: Mapping[str, Conversion] = {
    "all_linear_if": _all_linear_if,
    "base": _base,
    "batch": _batch,
    "betas": _betas,
    "bf16": _bf16,
    "bits": _bits,
    "dora": _flag("dora"),
    "evals_per_epoch": _evals_per_epoch,
    "four_bit": _flag("qlora"),
    "fp32": _fp32,
    "method": _method,
    "number": _number,
    "order_if": _order_if,
    "order_unless": _order_unless,
    "quantization": _quantization,
    "rslora": _flag("rslora"),
    "schedule": _schedule,
    "share": _share,
    "stage": _stage,
    "targets": _targets,
    "warmup_steps": _warmup_steps,
    "whole": _whole,
}
