"""Fetching a model and verifying that it is the one that was asked for."""
