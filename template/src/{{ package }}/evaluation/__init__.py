"""How good a model is: metrics, their errors, and rows that it has not seen."""
