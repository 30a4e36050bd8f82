"""HTTP: health, metrics, files, the API and the page, on a loop of their own. Only what listens imports it."""
