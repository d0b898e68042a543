"""Settings of the fast tests."""

from __future__ import annotations

import pytest
from hypothesis import settings

# What fails there is told with its values, as in a test.
pytest.register_assert_rewrite("tests.unit.plan_invariants")

# A busy machine is no failure.
settings.register_profile("kohort", deadline=None)
settings.load_profile("kohort")
