"""The hub's HTTP side: `app.create` makes the application, `serve.serve` runs it."""
