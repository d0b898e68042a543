"""Checks of a model before any client sees its answers."""
