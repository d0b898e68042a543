"""Tests that need torch, 3 GB with all that it wants: `make test-torch` runs them, `make test` does not."""
