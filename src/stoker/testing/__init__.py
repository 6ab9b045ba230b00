"""For tests of Stoker and of its plugins: an engine that fails on command, and suites that contracts are held to.

Nothing is imported here. :mod:`stoker.testing.fake_engine` and :mod:`stoker.testing.engines` need only what Stoker
needs; the suites (:mod:`~stoker.testing.policies`, :mod:`~stoker.testing.runtimes`, :mod:`~stoker.testing.schedulers`)
need pytest and Hypothesis.
"""
