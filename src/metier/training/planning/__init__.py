"""What a training would need and whether it is worth it, before anything is spent: counted, measured on a small sample, decided with reasons."""
