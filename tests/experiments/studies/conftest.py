"""What the tests of several studies stand on."""

from functools import cache

from minitx.config.compose import compose
from minitx.config.schema import Config
from minitx.training.launch import resolve


@cache
def families(*models: str, **words: object) -> dict[str, Config]:
    """Compose small models in fp32 on the CPU, alike but for the family."""
    common = {"model.size": "toy", "trainer.precision": "32-true", "trainer.accelerator": "cpu"} | words
    return {model: resolve(compose([f"model={model}", *(f"{key}={value}" for key, value in common.items())]))
            for model in models}
