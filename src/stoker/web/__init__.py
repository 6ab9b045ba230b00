"""What clients see: the HTTP server with its two lanes, and the Quart-Trio app behind the slower one."""
