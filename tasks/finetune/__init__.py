"""Fine-tuning for classification: the encoder and a linear head, trained end to end."""
