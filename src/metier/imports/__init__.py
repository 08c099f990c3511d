"""Settings files of other tools, read into a project file; what has no place in it is said, key by key."""
