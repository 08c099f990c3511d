"""An adapter's own files for PEFT: what Metier saves of the methods that PEFT has is PEFT's format, so the bytes are handed on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metier.deploy.subject import Made, Subject
from metier.deploy.tokenizers import copy_tokenizer
from metier.errors import ModelError
from metier.models.adapterfile import CONFIG
from metier.models.heads import is_encoder
from metier.models.labels import read_labelling
from metier.store import write_atomically

__all__ = ["check_peft", "configuration", "hand_on", "write_peft"]

_CLASSES = {"CAUSAL_LM": "AutoModelForCausalLM", "SEQ_CLS": "AutoModelForSequenceClassification", "TOKEN_CLS": "AutoModelForTokenClassification"}


def configuration(subject: Subject) -> dict[str, Any]:
    """Return an adapter's configuration with the task, without which PEFT puts no virtual tokens before a text."""
    config: dict[str, Any] = json.loads(subject.adapter.file(CONFIG).read_bytes())
    return {"task_type": "CAUSAL_LM"} | config


def check_peft(subject: Subject) -> None:
    """Raise ModelError where PEFT would load the files and compute something else: what stands at an encoder's first place is a virtual token there."""
    if subject.task in ("generation", "tagging") or subject.adapter.facts["method"] not in ("prompt", "p-tuning") or not is_encoder(subject.base):
        return
    raise ModelError(
        "PEFT gathers a text at an encoder's first place, which is a virtual token there; this expert was trained on the text's own first token, so its "
        "numbers would be others\n    -> no form of export can hold it: serve it with metier serve"
    )


def hand_on(subject: Subject, folder: Path, config: Mapping[str, Any]) -> None:
    """Copy an adapter's files into a folder, with this configuration, and put the base model's tokenizer beside them."""
    for name in subject.adapter.files:
        shutil.copyfile(subject.adapter.file(name), folder / name)
    # The name of a base model in another project's folder says nothing to a reader, which is told the base by its user.
    write_atomically(folder / CONFIG, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())
    copy_tokenizer(subject.base.folder, folder, subject.template)


def write_peft(subject: Subject, folder: Path) -> Made:
    """Write adapter, template and tokenizer into a folder."""
    config = configuration(subject)
    hand_on(subject, folder, config)
    kind = _CLASSES[config["task_type"]]
    labelling = None if subject.task == "generation" else read_labelling(subject.adapter.path)
    labels = "" if labelling is None else f", num_labels={len(labelling.classes)}"
    use = "\n".join(
        [
            "from peft import PeftModel",
            f"from transformers import {kind}, AutoTokenizer",
            f"base = {kind}.from_pretrained(BASE{labels})  # {subject.base.name}, with the digest named above",
            "model = PeftModel.from_pretrained(base, FOLDER)",
            "tokenizer = AutoTokenizer.from_pretrained(FOLDER)",
        ]
    )
    measured = {"kind": config["peft_type"]} | {key: config[name] for key, name in (("rank", "r"), ("virtual", "num_virtual_tokens")) if name in config}
    notes = () if labelling is None or labelling.task != "regression" else (f"The output is (number - {labelling.centre!r}) / {labelling.spread!r}.",)
    return Made(measured, {}, notes, use)
