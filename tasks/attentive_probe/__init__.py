"""The attentive probe: heads that attend over the patches of a frozen encoder."""
