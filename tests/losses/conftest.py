import pytest
import torch


@pytest.fixture(scope="session")
def batch():
    """`batch(seed=0, B=2, K=3, H=4, W=5, void=0.3, dtype=torch.float64)`: logits, target and weight, drawn."""

    def draw(seed=0, B=2, K=3, H=4, W=5, void=0.3, dtype=torch.float64):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(B, K, H, W, generator=generator, dtype=dtype)
        target = torch.randint(K, (B, H, W), generator=generator)
        target[torch.rand(B, H, W, generator=generator) < void] = 255
        weight = 3 * torch.rand(B, H, W, generator=generator, dtype=dtype)
        return logits, target, weight

    return draw
