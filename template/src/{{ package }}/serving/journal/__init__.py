"""What was predicted and what became of it, in a database."""
