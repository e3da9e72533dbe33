"""Conversations in a terminal: what was said, what is typed, and what the models are asked."""
