"""The embedded text: lexicon, morphology, syntax, sampling."""
