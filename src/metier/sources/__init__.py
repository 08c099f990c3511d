"""Source data: files in the field's formats, read as records with provenance."""
