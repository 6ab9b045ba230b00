"""The decisions, pure: events in, commands out. No Trio, no clock, no I/O, no logging."""
