"""Feature quality without labels: ranks and spreads of frozen features, as a task and as monitors of pretraining."""
