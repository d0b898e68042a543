"""Dynamic batching: a bounded queue, a measured batch size, isolated failures."""
