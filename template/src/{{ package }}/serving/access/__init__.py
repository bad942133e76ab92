"""Who may ask what, and how much may come before it is known."""
