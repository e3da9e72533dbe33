"""Other engines: what serves a pair there, and why some cannot."""
