"""One file per drafting algorithm, behind the protocol in `protocol.py`."""
