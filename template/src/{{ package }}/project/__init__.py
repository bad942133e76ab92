"""Yours: what is predicted, from which data, with which model, judged by which metrics."""
