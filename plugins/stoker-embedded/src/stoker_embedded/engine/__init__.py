"""Scripts that run in the engine's own environment, where nothing of Stoker's is installed."""
