"""The Helm chart, and the values that a build writes for it."""
