"""Settings of the fast tests."""

from __future__ import annotations

from hypothesis import settings

# A busy machine is no failure.
settings.register_profile("kohort", deadline=None)
settings.load_profile("kohort")
