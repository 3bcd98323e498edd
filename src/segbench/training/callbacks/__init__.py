"""What happens around training: checkpoints, progress, guards, averaged weights, pictures."""
