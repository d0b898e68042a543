"""Kohort's inference server: one model, the Open Inference Protocol, batches that pay."""
