"""A pytest plugin for mutants: the same examples each time, and none is made smaller, since nobody reads them."""

from __future__ import annotations

from hypothesis import Phase, settings

settings.register_profile(
    "unshrunk", derandomize=True, database=None, deadline=None, phases=(Phase.explicit, Phase.generate)
)
settings.load_profile("unshrunk")
