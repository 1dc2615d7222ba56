"""Tasks on clips: fine-tuning and frozen probes with several test views, beside scores of shuffled frames."""
