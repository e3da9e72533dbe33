"""The configuration file: defaults of the options, and named pairs of models."""
