"""The engines that run a model, behind one small interface."""
