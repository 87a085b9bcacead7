"""Finding subjects in pictures and clips, and the squares around them."""
