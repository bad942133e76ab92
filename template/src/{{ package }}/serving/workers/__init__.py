"""Several server processes at one socket."""
