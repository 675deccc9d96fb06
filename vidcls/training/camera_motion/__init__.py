"""The camera-motion task: synthetic clips, and how its model learns."""
