"""Edit: a portrait changes without a driving video."""
