"""Gates: what a model has to show on golden data before any client sees its answers."""
