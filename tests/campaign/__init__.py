"""Real processes, killed and frozen in the middle of everything: `python -m tests.campaign --store postgres`."""
