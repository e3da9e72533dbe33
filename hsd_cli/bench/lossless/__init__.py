"""Is anything lost? Every drafting algorithm against plain decoding, on two models as they are."""
