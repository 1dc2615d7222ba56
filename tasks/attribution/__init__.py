"""Which pixels made a classifier decide, and whether the answer can be trusted."""
