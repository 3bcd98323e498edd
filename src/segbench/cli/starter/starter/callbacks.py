"""A callback: any of Lightning's."""

import lightning


class LossAtValidations(lightning.Callback):
    """Prints the last training loss at every validation.

    Args:
        digits: after the point.
    """

    def __init__(self, digits: int = 3) -> None:
        self.digits = digits

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Called by Lightning."""
        loss = trainer.callback_metrics.get("train/loss")
        if loss is not None and trainer.is_global_zero:
            print(f"step {trainer.global_step}: train/loss {float(loss):.{self.digits}f}", flush=True)
