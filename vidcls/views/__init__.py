"""Frames → views: which frames and which crops; resized, cropped and normalized as the checkpoint was trained."""
