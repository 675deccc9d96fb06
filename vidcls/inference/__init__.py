"""One model made ready: a clip, a whole video, and what lies before the head."""
