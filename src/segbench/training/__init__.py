"""The LightningModule, its optimisers, checkpoints and callbacks."""

from segbench.runtime.torchvision import refuse_broken_torchvision

# Before Lightning, which would fail with a traceback.
refuse_broken_torchvision()
