"""What a build takes from outside: model, base image, wheels and their lock."""
