"""The engine's model: volumes, weights, the Hugging Face cache."""
