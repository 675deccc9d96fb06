"""vidcls: say what is in a video, with the pure-transformer models of 2021."""

__version__ = "0.1.0"
