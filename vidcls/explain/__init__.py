"""Where and when a model looked: attention rollout, gradient x attention, and occlusion for whatever has an engine."""
