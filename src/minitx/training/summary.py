"""What came of a run, in a few lines."""

from pathlib import Path

from minitx.profiling.peak import Peak
from minitx.runs.result import Result
from minitx.training import time_to_target
from minitx.utils.console import duration


def summary(result: Result, run_dir: Path) -> str:
    """Say in a few lines what came of the run, and how to use it."""
    why = f" ({result.stop_reason})" if result.stop_reason != result.status else ""
    lines = [f"{result.status}{why}: {result.steps:,} steps, {result.epochs:.1f} epochs, "
             f"{duration(result.train_s)} of training at {result.tgt_tokens_per_s or 0:,.0f} target tokens/s, "
             f"{duration(result.wall_s)} in all"]
    lines.append(f"{'MFU':>16}  " + (f"n/a ({result.not_measured.get('mfu_pct')})" if result.mfu_pct is None else
                 f"{result.mfu_pct:.1f} % of {Peak(result.peak_tflops, str(result.peak_source))}"))
    if result.disturbed:
        lines.append(f"{'disturbed':>16}  other processes took {result.other_cpu_pct:.0f} % of the cores: its times "
                     "are not to be published")
    if result.target_bleu is not None:
        lines.append(f"{'to target':>16}  {time_to_target.describe(result)}")
    for name, entry in result.test.items():
        extra = (f", roles {entry['role_accuracy_pct']:.1f} % (swapped {entry['roles_swapped_pct']:.1f} %)"
                 if "role_accuracy_pct" in entry else "")
        extra += f"  (word-for-word dictionary: {entry['dictionary_bleu']:.1f})" if "dictionary_bleu" in entry else ""
        lines.append(f"{name:>16}  BLEU {entry['bleu']:.1f}  chrF {entry['chrf']:.1f}{extra}")
        lines += [f"{phenomenon:>34}  BLEU {bleu:.1f}" for phenomenon, bleu in entry.get("phenomena_bleu", {}).items()]
    lines.append(f"{'result':>16}  {run_dir / 'result.json'}")
    lines.append(f"{'try it':>16}  minitx translate {run_dir}")
    if result.status in ("interrupted", "terminated"):
        lines.append(f"{'go on':>16}  the same command with run_dir={run_dir} resume=auto")
    return "\n".join(lines)
