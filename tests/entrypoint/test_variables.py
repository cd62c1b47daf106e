"""The table of variables agrees with the code, and each kind of variable is derived again, or declines by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from warmimage.entrypoint.environment import import_environment, module_constants, python_locale, reapply
from warmimage.entrypoint.environment.import_environment import Contract, Reads
from warmimage.entrypoint.environment.reapply_devices import DEVICE_HANDLERS
from warmimage.entrypoint.environment.variables import DECLINES, DERIVED_AGAIN, NO_EFFECT, TABLE, is_derived, row

from tests.docs.variables import variables_text

#: What issue and design name: none may be without a row.
NAMED = (
    "TZ",
    "LANG",
    "LC_ALL",
    "LC_TIME",
    "LANGUAGE",
    "PYTHONUNBUFFERED",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONHASHSEED",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "HOME",
    "USER",
    "TMPDIR",
    "TRANSFORMERS_CACHE",
    "TRANSFORMERS_OFFLINE",
    "TRANSFORMERS_VERBOSITY",
    "VLLM_LOGGING_LEVEL",
    "VLLM_CACHE_ROOT",
    "VLLM_NO_USAGE_STATS",
    "VLLM_WORKER_MULTIPROC_METHOD",
    "LD_LIBRARY_PATH",
    "PATH",
    "MALLOC_ARENA_MAX",
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_LAUNCH_BLOCKING",
    "OTEL_SERVICE_NAME",
    "HF_ENDPOINT",
    "PYTHONPATH",
    "PROMETHEUS_MULTIPROC_DIR",
    "LOG_LEVEL",
    "NO_COLOR",
    "LD_PRELOAD",
)

#: Values to change a variable to; of those that decline by their value alone, one that does.
VALUES = {
    "LC_ALL": "C.UTF-8",
    "LD_LIBRARY_PATH": os.path.dirname(os.__file__) + "/lib-dynload",
    "LD_PRELOAD": "/lib/other.so",
}


@pytest.mark.parametrize("name", NAMED)
def test_every_variable_that_was_promised_has_a_row(name: str) -> None:
    assert row(name) is not None


@pytest.mark.parametrize("pattern", [name for variable in TABLE for name in variable.names])
def test_the_table_says_what_the_code_does(pattern: str) -> None:
    name = pattern.replace("*", "TIME" if pattern == "LC_*" else "_OF_A_TEST")
    found = row(name)
    assert found is not None
    assert pattern in found.names
    contract = Contract({"LANG": "C.UTF-8"}, {"TQDM_*": "tqdm.utils", "NETWORKX_*": "n", "SAGEMAKER_*": "s"})
    reason = contract.conflict({"LANG": "C.UTF-8", name: VALUES.get(name, "1")}, restored=True)
    if found.effect == DECLINES:
        assert (reason or "").startswith(f"{name} ")
        assert (reason or "").endswith(f'put "env: {{{name}: ...}}" into warmimage.yaml and build again')
    else:
        assert reason is None
    assert is_derived(name) is (found.effect == DERIVED_AGAIN)


def test_every_derived_variable_of_the_table_has_a_handler_and_no_other_effect_has_one() -> None:
    for variable in TABLE:
        for name in variable.names:
            if not name.endswith("*"):
                assert (name in reapply.READERS or name in DEVICE_HANDLERS) is (variable.effect == DERIVED_AGAIN), name
    assert {variable.effect for variable in TABLE} == {NO_EFFECT, DERIVED_AGAIN, DECLINES}


def test_the_page_has_every_row() -> None:
    text = variables_text("")
    assert all(f"`{name}`" in text for variable in TABLE for name in variable.names)


def test_a_derived_variable_that_another_module_read_declines() -> None:
    contract = Contract({}, {"HOME": "huggingface_hub.constants, plugin"})
    assert contract.conflict({"HOME": "/x"}) == "HOME has changed since plugin read it"
    assert Contract({}, {"HOME": "huggingface_hub.constants"}).conflict({"HOME": "/x"}) is None


def test_a_reason_has_no_value_in_it() -> None:
    reason = Contract({}, {"TOKEN": "client", "OTHER": "client"}).conflict(
        {"TOKEN": "s3cret", "OTHER": "1"}, restored=True
    )
    assert "s3cret" not in str(reason)
    assert '"env: {OTHER: ..., TOKEN: ...}"' in str(reason)


def test_a_home_with_packages_declines(tmp_path: Path) -> None:
    assert Contract({}, {}).conflict({"HOME": str(tmp_path)}) is None
    (tmp_path / ".local/lib" / f"python3.{sys.version_info[1]}" / "site-packages").mkdir(parents=True)
    assert str(Contract({}, {}).conflict({"HOME": str(tmp_path)})).startswith("HOME has packages of its own in ")


@pytest.mark.parametrize(
    ("before", "after", "declines"),
    [
        (None, None, False),
        (None, "random", False),
        ("random", "", False),
        (None, "0", True),
        ("7", "7", False),
        ("7", None, True),
        ("7", "8", True),
    ],
)
def test_hash_seed(before: str | None, after: str | None, declines: bool) -> None:
    contract = Contract({"PYTHONHASHSEED": before} if before is not None else {}, {})
    reason = contract.conflict({"PYTHONHASHSEED": after} if after is not None else {}, restored=True)
    assert bool(reason) is declines


def test_library_path_counts_where_libraries_lie(tmp_path: Path) -> None:
    empty, full, other = (tmp_path / name for name in ("empty", "full", "other"))
    for directory in (empty, full, other):
        directory.mkdir()
    (full / "libcuda.so.1").touch()
    (other / "libz.so").touch()
    bare, with_full, both = Contract({}, {}), f"{full}", f"{full}:{other}"
    assert bare.conflict({"LD_LIBRARY_PATH": f"{empty}:/absent"}) is None
    assert f"LD_LIBRARY_PATH names {full}, " in str(bare.conflict({"LD_LIBRARY_PATH": with_full}))
    kept = Contract({"LD_LIBRARY_PATH": both}, {})
    assert kept.conflict({"LD_LIBRARY_PATH": f"{full}:{empty}:{other}"}) is None
    assert "another order" in str(kept.conflict({"LD_LIBRARY_PATH": f"{other}:{full}"}))
    assert f"names {other}, " in str(kept.conflict({"LD_LIBRARY_PATH": with_full}))


def test_reads_have_all_readers_and_leave_out_those_that_go_through_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("READ", "1")

    def read(module: str, code: str) -> None:
        exec(f"import os\n{code}", vars(types.ModuleType(module)))  # noqa: S102 - a module that reads

    with Reads() as reads:
        for module in ("first", "second", "first"):
            read(module, "os.environ.get('READ'), os.path.expanduser('~')")
    assert reads.names == {"HOME": "first, second", "READ": "first, second"}
    with Reads() as reads:
        read("tqdm.utils", "list(os.environ.items())")
    assert reads.names == {"TQDM_*": "tqdm.utils"}
    assert reads.copied_by == {"tqdm.utils"}
    assert (
        Contract({}, reads.names).conflict({"TQDM_DISABLE": "1"}) == "TQDM_DISABLE has changed since tqdm.utils read it"
    )
    assert Contract({}, reads.names).conflict({"HOSTNAME": "other"}) is None


#: Prints what a start's interpreter made of its environment, and what one makes of it that was started with another.
LOCALE = """
import json, locale, os, sys
wanted = json.loads(sys.argv[1])
if len(sys.argv) > 2:
    sys.path.insert(0, sys.argv[2])
    from warmimage.entrypoint.environment import python_locale
    for name in python_locale.VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(wanted)
    python_locale.apply()
print(json.dumps([
    locale.setlocale(locale.LC_ALL), sys.stdin.errors, sys.stdout.errors, sys.stderr.errors, sys.stdout.encoding,
    os.environ.get("LC_CTYPE"),
]))
"""


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"LANG": "C.UTF-8"},
        {"LANG": "C"},
        {"LANG": "POSIX"},
        {"LANG": "xx_XX.UTF-8"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C.UTF-8"},
        {"LC_ALL": "xx_XX.UTF-8"},
        {"LC_CTYPE": "C.UTF-8", "LANG": "xx_XX"},
        {"LC_TIME": "C.UTF-8"},
        {"LANG": "C.UTF-8", "LC_TIME": "C"},
    ],
    ids=str,
)
@pytest.mark.parametrize("start", [{}, {"LANG": "C.UTF-8"}], ids=str)
def test_locale_is_that_of_a_new_interpreter(start: dict[str, str], variables: dict[str, str]) -> None:
    package = str(Path(import_environment.__file__).parents[2])

    def say(own: dict[str, str], *words: str) -> list[str]:
        command = [sys.executable, "-c", LOCALE, json.dumps(variables), *words]
        done = subprocess.run(command, env={"PATH": os.environ["PATH"], **own}, capture_output=True, check=True)
        return list(json.loads(done.stdout))

    assert say(start, package) == say(variables)
    assert python_locale.conflict(start, variables, utf8_mode=1) is None


def test_another_text_encoding_declines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_locale, "charset", lambda values: values.get("LANG", "").partition(".")[2].lower())
    reason = Contract({"LANG": "C.utf8"}, {}).conflict({"LANG": "de_DE.iso88591"}, restored=True)
    assert str(reason).startswith(
        "LANG does not fit: its text encoding is iso88591, and the modules were imported with utf8"
    )
    assert Contract({"LANG": "x.utf8"}, {}, utf8_mode=0).conflict({"LC_ALL": "C"}) is not None


def test_constants_are_computed_again_and_copies_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "constants_module.py").write_text(
        "import os\nHOME = os.environ.get('X', 'none') + '/a'\nKEPT = ['same']\n"
        "def home():\n    return HOME\nif HOME.startswith('bad'):\n    raise ValueError(HOME)\n"
    )
    (tmp_path / "copier_module.py").write_text("from constants_module import HOME, KEPT, home\nOTHER = HOME\n")
    monkeypatch.syspath_prepend(tmp_path)
    import copier_module as copier  # type: ignore[import-not-found]

    constants = sys.modules["constants_module"]
    kept, home = copier.KEPT, copier.home
    monkeypatch.setenv("X", "new")
    assert module_constants.run_again("constants_module") == {"HOME": ("none/a", "new/a")}
    assert (copier.HOME, copier.home(), copier.OTHER) == ("new/a", "new/a", "none/a")
    assert vars(constants)["KEPT"] is kept is copier.KEPT
    assert vars(constants)["home"] is home
    monkeypatch.setenv("X", "bad")
    with pytest.raises(ValueError, match="bad/a"):
        module_constants.run_again("constants_module")
    assert vars(constants)["HOME"] == "new/a"
    assert module_constants.run_again("absent") == {}


#: A process that sets variables late, and says what time it is, where its files go, and how it writes.
LATE = """
import os, sys, tempfile, time
sys.path.insert(0, sys.argv[1])
from warmimage.entrypoint.environment.import_environment import Contract
contract = Contract(dict(os.environ), {})
tempfile.gettempdir()
for pair in sys.argv[2:]:
    name, _, value = pair.partition("=")
    os.environ[name] = value
failed = contract.reapply(dict(os.environ))
sys.stdout.write(" ".join([
    time.strftime("%H:%M %Z", time.localtime(0)), tempfile.gettempdir(), str(sys.dont_write_bytecode), str(failed),
]))
os._exit(0)  # what is in a buffer is lost
"""


def test_time_zone_temporary_directory_and_buffering_follow(tmp_path: Path) -> None:
    package = str(Path(import_environment.__file__).parents[2])
    words = ["TZ=XXX-9", f"TMPDIR={tmp_path}", "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"]
    own = {"PATH": os.environ["PATH"]}

    def run(*variables: str) -> str:
        command = [sys.executable, "-c", LATE, package, *variables]
        return subprocess.run(command, env=own, capture_output=True, check=True, text=True).stdout

    assert run(*words) == f"09:00 XXX {tmp_path} True {{}}"
    assert run(*words[:-1]) == ""


def test_a_handler_that_fails_is_told_by_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise LookupError("gone")

    monkeypatch.setattr(import_environment, "HANDLERS", (reapply.Handler(fail, ("A", "B")),))
    assert Contract({"A": "1"}, {}).reapply({"A": "2", "C": "3"}) == {"A": "LookupError('gone')"}
