"""Tables in, tables out: predictions of many rows, and late labels."""
