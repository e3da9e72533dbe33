"""Which algorithm for which pair."""
