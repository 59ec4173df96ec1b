"""Networks that users have trained, as spaces of what can be taken away from them."""
