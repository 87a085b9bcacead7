"""Square clips of the subjects of videos and pictures."""
