"""Programs that people and schedulers start around the pipeline."""
