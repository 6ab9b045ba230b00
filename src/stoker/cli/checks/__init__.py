"""What ``stoker doctor`` looks at: functions that each return what they found, and what to do about it."""

from stoker.cli.checks.finding import LOW_CACHE_BYTES, Finding, Verdict, What

__all__ = ["LOW_CACHE_BYTES", "Finding", "Verdict", "What"]
