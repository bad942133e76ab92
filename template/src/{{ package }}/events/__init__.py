"""What a webhook is told: moves, refusals, verdicts and trainings, and how it gets there."""
