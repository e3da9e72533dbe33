"""The decode loop, the verifier, the sampling settings and the text stream. No printing."""
