"""Training, offline: data sets, models, losses, the fit loop, evaluation, and the export into `model_store`."""
