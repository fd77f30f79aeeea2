"""One standalone script for each step of dvc.yaml; they meet only on disk."""
