"""Lists of clips → batches for training."""
