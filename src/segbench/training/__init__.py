"""The LightningModule, its optimisers, checkpoints and callbacks."""
