"""Load tests: what a bundle can take, and the limits it must hold."""
