"""A loaded model, applied to a clip or a whole video; and what comes before its head."""
