"""The Flask app: form, JSON and batch file, answered by models/final and nothing else of ours."""
