"""What happens when in a long video: windows or shots → scores → segments with label, start and end."""
