"""What staging holds, beside what production serves: as a shadow, as a canary, or as both."""
