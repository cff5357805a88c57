"""The service, online: HTTP as a thin shell over the recommender, the live model, the index and the state store."""
