"""Whether what is served is still good: drift of the data, and of the concept."""
