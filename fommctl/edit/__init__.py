"""Edit: a portrait changes by numbers, without a driving video."""
