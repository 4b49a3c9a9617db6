"""Making ArrayRecord data: the synthetic generator, converters, checks."""
