"""A model with a KV cache that can be rolled back: device, dtype, cache."""
