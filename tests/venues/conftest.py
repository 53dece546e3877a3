"""`pytest tests/venues --hypothesis-profile deep` looks at a million cases and more instead of a few thousand."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("shallow", deadline=None)  # a busy machine is no fault
settings.load_profile("shallow")
settings.register_profile(
    "deep", max_examples=50_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
