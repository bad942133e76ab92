"""From rows to a bundle: snapshots, fitting, export."""
