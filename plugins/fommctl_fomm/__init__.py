"""The First Order Motion Model backend."""
