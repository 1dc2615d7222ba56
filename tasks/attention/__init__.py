"""What the heads of a Transformer attend to: how far, how widely, and how differently."""
