"""Events for a webhook: moves, refusals, verdicts and trainings, their outbox, and delivery."""
