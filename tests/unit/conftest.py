"""Settings of the fast tests."""

from __future__ import annotations

import pytest

# What fails there is told with its values, as in a test.
pytest.register_assert_rewrite("tests.unit.plan_invariants")
