"""What is asked of a translator, and which of it contradicts itself. No torch."""

from dataclasses import dataclass, fields

from minitx.config.fields import nearest
from minitx.profiling.devices import DEVICES, Device
from minitx.profiling.process import physical_bytes
from minitx.utils.errors import UserError

HERE = "here"  # as `hardware`: this machine's processor


@dataclass(frozen=True)
class Demands:
    """A problem in numbers; None = nothing is asked. Lengths are tokens on either side, EOS included."""

    length: int  # of a typical sentence
    longest: int  # of the longest one
    hardware: str  # `HERE`, or the name of a GPU
    gpus: int = 1
    tokens: float | None = None  # target tokens that training reads, every pass counted; None = as the budget allows
    budget_minutes: float | None = None  # of training at most
    latency_ms: float | None = None  # of a token at most, at the end of a typical sentence, one sentence at a time
    memory_gib: float | None = None  # of a device, in training; None = what it has
    serve_gib: float | None = None  # for weights and the state of one sentence of typical length
    streaming: bool = False  # the state that decoding carries must not grow
    attention: bool = False  # each target token must be able to look at each source token
    target_bleu: float | None = None  # on the captions that were measured
    price: float | None = None  # of a device for an hour

    @property
    def device(self) -> Device | None:
        """Return the GPU, or None for this machine's processor."""
        return None if self.hardware == HERE else next(d for d in DEVICES if d.name == self.hardware)

    @property
    def memory_limit_gib(self) -> float | None:
        """Return the memory that a device has for training; None = unknown."""
        if self.memory_gib is not None:
            return self.memory_gib
        if self.device is not None:
            return self.device.memory_gb * 1e9 / 2**30
        there = physical_bytes()
        return None if there is None else there / 2**30

    def check(self) -> None:
        """Refuse what contradicts itself. Errors: `UserError`, one line each"""
        known = [HERE, *(device.name for device in DEVICES)]
        if self.hardware not in known:
            raise UserError(f"--hardware {self.hardware}: no such hardware{nearest(self.hardware, known)} "
                            f"({', '.join(known)})")
        self._check_values()
        if self.longest < self.length:
            raise UserError(f"--longest {self.longest:,}: a typical sentence has --length {self.length:,} tokens, and "
                            "none can be longer than the longest")
        if self.tokens is None and self.budget_minutes is None:
            raise UserError("--tokens: how long is trained? Say --tokens, or --budget-minutes")
        if self.tokens is not None and self.tokens < self.length:
            raise UserError(f"--tokens {self.tokens:,.0f}: less than one sentence of --length {self.length:,} tokens")
        if self.streaming and self.attention:
            raise UserError("--streaming: constant memory cannot hold the source that --attention looks at; leave one "
                            "of them out")
        if self.hardware == HERE and self.gpus > 1:
            raise UserError(f"--gpus {self.gpus}: is about GPUs; --hardware here is this machine's processor")

    def _check_values(self) -> None:
        """Refuse values that nothing could have."""
        for name in (spec.name for spec in fields(self)):
            value = getattr(self, name)
            if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0 and name != "price":
                raise UserError(f"{option(name)} {value:g}: must be above 0")
        if self.length < 2:
            raise UserError(f"--length {self.length}: a sentence has a token and its end, so at least 2")
        if self.target_bleu is not None and self.target_bleu > 100:
            raise UserError(f"--target-bleu {self.target_bleu:g}: BLEU ends at 100")


def option(name: str) -> str:
    """Return the option of the command line that sets a demand."""
    return "--" + name.replace("_", "-")
