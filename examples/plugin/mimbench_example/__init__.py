"""One method, one task, one dataset and one encoder for mimbench."""
