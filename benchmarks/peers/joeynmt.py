"""Joey NMT: its own training function, with a hook at each update."""

from pathlib import Path
from typing import Any

from benchmarks import work
from benchmarks.work import Job, Meter, Report

PACKAGES = ("numpy==2.4.6", "sacrebleu==2.6.0", "sentencepiece==0.2.0", "subword-nmt==0.3.8",
            "matplotlib==3.11.2", "pyyaml==6.0.3", "tensorboard==2.21.0", "packaging==26.3",
            "importlib_metadata==10.2.0", "tqdm==4.70.1")
NO_DEPS = ("joeynmt==2.3.0",)  # without its requirements, whose old pins pip did not resolve in 7 minutes
PRECISIONS = LEARNS_IN = ("fp32",)  # it switches its 16-bit mode off on a CPU
POSITIONS = 9600  # its `batch_size` counts padding; it does not sort by length, and 43 % are real target tokens
QUALITY_POSITIONS = 4096  # where quality is measured: smaller updates, so more of them


def train(job: Job, report: Report) -> None:
    """Train until killed."""
    from joeynmt.prediction import predict
    from joeynmt.training import TrainManager, train

    meter, whole, step = Meter(job, report), TrainManager.train_and_validate, TrainManager._train_step

    def with_valid_data(self: Any, train_data: Any, valid_data: Any) -> None:
        self.benchmark_valid_data = valid_data
        whole(self, train_data, valid_data)

    def counted(self: Any, batch: Any) -> Any:
        def translate() -> list[str]:
            return predict(model=self.model, data=self.benchmark_valid_data, device=self.device, n_gpu=0,
                           args=self.dev_cfg, autocast=self.autocast)[2]

        result = step(self, batch)
        meter.update(batch.ntokens, translate)
        return result

    TrainManager.train_and_validate, TrainManager._train_step = with_valid_data, counted
    train(rank=0, world_size=None, cfg=_config(job), skip_test=True)


def _config(job: Job) -> dict[str, Any]:
    text = Path(job.text)
    positions = POSITIONS if job.translate_every_s is None else QUALITY_POSITIONS
    side = {
        "voc_file": str(text / "joint.pieces"), "level": "bpe", "max_length": 250, "tokenizer_type": "sentencepiece",
        "tokenizer_cfg": {"model_file": str(text / "joint.model")},
    }
    stack = {
        "type": "transformer", "num_layers": work.LAYERS, "num_heads": work.HEADS, "hidden_size": work.D_MODEL,
        "ff_size": work.D_FF, "dropout": work.DROPOUT, "layer_norm": "pre",
        "embeddings": {"embedding_dim": work.D_MODEL, "scale": True},
    }
    training = {
        "batch_type": "token", "batch_size": positions, "normalization": "tokens", "loss": "crossentropy",
        "label_smoothing": work.SMOOTHING, "optimizer": "adam", "adam_betas": [work.BETA1, work.BETA2],
        "learning_rate": work.LR, "learning_rate_min": 1e-9, "scheduling": "warmupinversesquareroot",
        "learning_rate_warmup": work.WARMUP, "epochs": work.FOREVER, "validation_freq": work.FOREVER,
        "logging_freq": 10, "overwrite": True,
    }
    return {
        "name": "captions", "model_dir": job.folder, "use_cuda": False, "fp16": False, "random_seed": 1,
        "data": {"train": str(text / "train"), "dev": str(text / work.TEST), "dataset_type": "plain",
                 "src": side | {"lang": work.SRC}, "trg": side | {"lang": work.TGT},
                 "special_symbols": {"unk_id": work.UNK, "pad_id": work.PAD, "bos_id": work.BOS, "eos_id": work.EOS}},
        "training": training,
        "testing": {"beam_size": 1, "batch_size": 64, "batch_type": "sentence", "max_output_length": 60},
        "model": {"initializer": "xavier_uniform", "embed_initializer": "xavier_uniform", "tied_embeddings": True,
                  "tied_softmax": True, "encoder": stack, "decoder": stack},
    }
