"""Out of the framework: graphs that need no code of this package, proven before use."""
