"""Runs the core: spawns, probes, stops, and tells it what happened."""
