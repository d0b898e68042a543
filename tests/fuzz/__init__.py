"""Requests that nobody should send, at random but from a seed, and what a server must still do."""
