"""python -m ops.predictions: what people do with the prediction log; one module a command."""
