"""How shards of work are executed: in this process or in several."""
