"""Everything between files on disk and batches; calls no JAX function."""
