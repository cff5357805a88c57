"""HTTP: a thin shell over the use cases. The only home of FastAPI and Starlette."""
