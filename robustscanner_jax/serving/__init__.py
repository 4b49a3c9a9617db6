"""Reading images over HTTP: dynamic batches, back-pressure, health, metrics."""
