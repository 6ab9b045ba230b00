"""The data plane: takes a request, chooses an engine for it, and relays the answer."""
