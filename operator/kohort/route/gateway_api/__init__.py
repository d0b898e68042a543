"""The Gateway API rendering of route tables: for gateways that are not Kohort's own."""
