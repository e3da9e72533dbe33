"""Where models come from: the embedded pair, folders and the hub."""
