"""The models by pool type, one line each."""

from __future__ import annotations

from typing import Final

from tests.venues import amm_v4, clmm, cpmm, damm_v1, damm_v2, dlmm
from tests.venues.model import Model

MODELS: Final[dict[str, Model]] = {model.TYPE.name: model for model in (cpmm, amm_v4, clmm, damm_v2, dlmm, damm_v1)}
