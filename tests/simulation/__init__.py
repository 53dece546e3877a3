"""The engine in a world of its own, on virtual time, by a seed: `python -m tests.simulation --seeds 1000`."""
