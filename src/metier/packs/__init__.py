"""The contract of domain packs, and how they are found, loaded and checked."""
