"""More than the engine can take, all at once: `python -m tests.pressure`."""
