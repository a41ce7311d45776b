"""Text to batches: reading, cleaning, tokenizer, the epoch plan, packing."""
