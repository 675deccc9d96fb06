"""What of vidcls works on this machine, and what to do where it does not."""
