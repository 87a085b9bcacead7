"""Where a result comes from: its sidecar, rendering it again from there, its signature, and looking at all of it."""
