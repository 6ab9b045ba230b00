"""Stoker keeps inference engines running and puts one OpenAI-compatible address in front of them."""

__version__ = "0.1.0"
