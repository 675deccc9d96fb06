"""A path, a URL or bytes → frames: open, index, decode just the frames asked for, in a process that can be killed."""
