"""The gateway as a module: ``python -m sage.llm.gateway``."""
