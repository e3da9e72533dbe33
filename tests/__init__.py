"""The tests. Every process of theirs has one thread: with tiny tensors, threads only wait for each other."""

import os

# Before anything imports torch or tokenizers; what the tests start inherits it.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
