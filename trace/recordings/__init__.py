"""The recordings that the films play, and the index that finds them."""
