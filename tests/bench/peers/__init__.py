"""Other servers of the same model, started as their users start them."""
