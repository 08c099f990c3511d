"""data-juicer's MinHash deduplicator on texts given as JSON on the standard input; run by `dedup.py` with the interpreter of its own environment.

Tokens are characters, five to a shingle, 128 hashes: what its documentation advises for Chinese. Nothing is verified. The last line is JSON.
"""

from __future__ import annotations

import json
import logging
import sys
import time

logging.disable(logging.WARNING)

from data_juicer.ops.deduplicator.document_minhash_deduplicator import DocumentMinhashDeduplicator  # noqa: E402
from datasets import Dataset, disable_progress_bars  # noqa: E402


def main() -> None:
    given = json.load(sys.stdin)
    disable_progress_bars()
    operator = DocumentMinhashDeduplicator(tokenization="character", window_size=5, jaccard_threshold=given["threshold"], num_permutations=128)
    rows = Dataset.from_list([{"text": text} for text in given["texts"]])
    began = time.perf_counter()
    kept, _ = operator.process(rows.map(operator.compute_hash))
    seconds = time.perf_counter() - began
    count = len(given["texts"])
    print(json.dumps({"documents": count, "seconds": round(seconds, 2), "documents_per_second": round(count / seconds), "kept": len(kept)}))


if __name__ == "__main__":
    main()
