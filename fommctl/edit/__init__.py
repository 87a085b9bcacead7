"""Editing of portraits by named parameters, without a driving video."""
