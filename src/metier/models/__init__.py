"""Language models: loading, chat rendering, adapters, generation, likelihood."""
