"""Measuring base and expert on the same held-out items, with intervals."""
