"""What ``stoker doctor`` looks at: functions that each return what they found, and what to do about it."""

from stoker.cli.checks.finding import Finding, Verdict

__all__ = ["Finding", "Verdict"]
