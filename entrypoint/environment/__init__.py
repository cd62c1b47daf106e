"""Environment variables: what imports read of them, and how a change is applied again."""
