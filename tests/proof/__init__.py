"""The proof: faults of every kind we can make, and a judge that shares no code with the engine's own reconciliation."""
