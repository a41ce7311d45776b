"""The card of a model on a hub: README.md, with what hubs read on top and what people read below."""

from typing import Any

import yaml

from minitx.config.schema import Config
from minitx.export.provenance import text_origin
from minitx.runs.result import searched
from minitx.utils.tables import markdown

CARD = """---
{metadata}---

# {src} to {tgt}: a Transformer trained with minitx

{size}

```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

name = "{name}"
tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModelForSeq2SeqLM.from_pretrained(name)
inputs = tokenizer(["A line in {src}."], return_tensors="pt", padding=True)
print(tokenizer.batch_decode(model.generate(**inputs), skip_special_tokens=True))
```

## Results

{results}

## Text

{text}

## Where it is from

{origin}
"""
UNKNOWN = "unknown to minitx: look it up where the text is from before you share the model"


def card(cfg: Config, result: dict[str, Any] | None, name: str) -> str:
    """Return README.md. result: of `result_summary`; name: of the folder or repository"""
    text = text_origin(cfg)
    source = f"`{text['name']}`" + (f" ({text['source']})" if text["source"] else "")
    return CARD.format(
        metadata=yaml.safe_dump(_metadata(cfg, result, name), sort_keys=False, allow_unicode=True), name=name,
        src=cfg.data.src, tgt=cfg.data.tgt, size=_size(cfg, result), results=_results(result),
        text=f"Learned from {source}. Licence of the text: {text['licence'] or UNKNOWN}.", origin=_origin(cfg, result))


def _metadata(cfg: Config, result: dict[str, Any] | None, name: str) -> dict[str, Any]:
    text = text_origin(cfg)
    licence = {} if text["licence"] is None else {"license": text["licence"].lower()}
    known: dict[str, Any] = {"language": [cfg.data.src, cfg.data.tgt], **licence, "library_name": "transformers",
                             "pipeline_tag": "translation", "tags": ["translation", "minitx"]}
    if cfg.data.source == "hub":
        known["datasets"] = [cfg.data.hub_id]
    if result is not None:
        known["metrics"] = ["bleu", "chrf"]
        known["model-index"] = [{"name": name, "results": [
            {"task": {"type": "translation"},
             "dataset": {"type": text["source"] or text["name"], "name": f"{text['name']} {test}"},
             "metrics": [{"type": metric, "value": round(scores[metric], 2), "name": scores[f"{metric}_signature"]}
                         for metric in ("bleu", "chrf")]} for test, scores in result["test"].items()]}]
    return known


def _size(cfg: Config, result: dict[str, Any] | None) -> str:
    words = f"Model `{cfg.choices.model}`, size `{cfg.model.size}`"
    if result is None:
        return words + "."
    return (f"{words}, {result['params'] / 1e6:,.1f} million parameters, trained for {result['steps']:,} updates "
            f"({result['epochs']:.1f} passes over the text), {result['train_s'] / 60:,.0f} minutes.")


def _results(result: dict[str, Any] | None) -> str:
    if result is None:
        return "The run that these weights are from has no result: they were not scored."
    rows = [(test, f"{scores['bleu']:.2f}", f"{scores['chrf']:.2f}", f"{scores['sentences']:,}")
            for test, scores in result["test"].items()]
    signatures = {f"- {metric}: `{scores[key]}`" for scores in result["test"].values()
                  for metric, key in (("BLEU", "bleu_signature"), ("chrF", "chrf_signature"))}
    return "\n\n".join([markdown(["test set", "BLEU", "chrF", "sentences"], rows),
                        f"By minitx's own search, {searched(result['decode'])}; signatures of sacreBLEU:",
                        "\n".join(sorted(signatures))])


def _origin(cfg: Config, result: dict[str, Any] | None) -> str:
    if result is None:
        return f"Seed {cfg.seed}. `minitx.json` has the settings."
    commit = "unknown" if result["git_sha"] is None else f"`{result['git_sha']}`" + (
        ", with changes" if result["git_dirty"] else "")
    return (f"Seed {result['seed']}; commit of minitx: {commit}; SHA-256 of the config `{result['config_sha256']}`, "
            f"of the text `{result['data_sha256']}`. `minitx.json` has the settings, and the digest of every file.")
