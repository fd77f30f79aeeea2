"""The monitor: what was predicted lately, held against what the model knows."""
