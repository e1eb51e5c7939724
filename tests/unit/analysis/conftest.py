from __future__ import annotations

from hypothesis import settings

# The same examples on every run and machine, so that CI cannot fail by luck; no deadline, since CI shares its cores.
settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")
