"""What happens around the iterations: averaging, judging, recording, checkpoints, progress."""
