"""From records to a dataset: clean, de-identified, deduplicated, composed, split without leakage."""
