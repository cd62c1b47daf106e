"""What an image's build imports and captures: the file ``imports.json``, a part of the plan."""

from dataclasses import dataclass

from .plan import Part

# Annotations are not postponed here: ``Part.from_json`` reads the types of the fields.


@dataclass(frozen=True)
class Imports(Part):
    """The part of the plan that the closure and the snapshot depend on.

    The name of the model and the port are not in it: another one must not import and capture everything again.

    Attributes:
        required_modules: modules without which the image is broken.
        native_libraries: shared objects that use no Python, as patterns relative to ``sys.path`` entries.
        import_environment: variables that keep the accelerator untouched while modules are imported.
        modules: modules that a start imports, in load order.
        later: modules that it imports only when it is ready.
        preload: what the engine sets in ``LD_PRELOAD`` before it starts its processes.
        accelerator: what the engine serves on, ``cuda`` or ``cpu``.
        command: the engine's program, without the arguments that name the model.
        python: path of the engine's interpreter.
        user: id of the user that the server runs as.
        environment: names of the image's variables.
        baseline: the instruction set that a snapshot is captured for; empty for that of the capturing CPU.
    """

    required_modules: tuple[str, ...]
    native_libraries: tuple[str, ...]
    import_environment: dict[str, str]
    modules: tuple[str, ...]
    later: tuple[str, ...]
    preload: str
    accelerator: str
    command: tuple[str, ...]
    python: str
    user: int
    environment: tuple[str, ...]
    baseline: str
