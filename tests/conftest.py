"""What holds for every test: no deadlines, since a busy machine is no bug; no network."""

import os

from hypothesis import settings

settings.register_profile("minitx", deadline=None)
settings.load_profile("minitx")
os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
