"""The build of an image: plan, context, Dockerfile, recorded closure, compile caches and snapshot."""
