"""Measures Stoker against other proxies: ``python3 tests/bench/run.py``. Needs the standard library and gcc."""
