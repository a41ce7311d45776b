"""Test sets to scores: BLEU and chrF, significance, attention maps."""
