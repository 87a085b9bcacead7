"""One long driving video rendered in segments, in several processes: planning, rendering, joining."""
