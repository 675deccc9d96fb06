"""A linear classifier on the embeddings of a frozen model: minutes on a laptop, and honest figures."""
