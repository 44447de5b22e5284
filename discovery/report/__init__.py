"""What a person is shown of a run: one page. It knows files and words, no mathematics, no JAX."""
