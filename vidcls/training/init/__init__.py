"""Where a model starts from: an image model, a video model, or nothing."""
