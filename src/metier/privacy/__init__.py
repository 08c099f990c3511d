"""Personal identifiers in text: finding them and putting consistent surrogates in their place."""
