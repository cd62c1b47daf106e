"""The command line of ``warm``, and amounts of bytes."""

from __future__ import annotations

import math

import pytest
from warmimage.entrypoint.warm import sizes
from warmimage.entrypoint.warm.options import DEADLINE, Options, UsageError, parse


def test_all_options_are_read() -> None:
    words = (
        "--dir /a --dir=/b/ --targets weights,snapshot --budget 20Gi --rate=500M --interval 5 --deadline=60 --lock "
        "--on-exit drop --port 0 --node-label example.com/warm-1 --once"
    )
    assert parse(words.split()) == Options(
        directories=("/a", "/b"),
        targets=("snapshot", "weights"),
        budget=20 << 30,
        rate=500_000_000,
        interval=5.0,
        deadline=60.0,
        lock=True,
        drop=True,
        port=0,
        node_label="example.com/warm-1",
        once=True,
    )


def test_the_deadline_of_a_single_run_is_only_what_was_said() -> None:
    assert parse([]).patience == DEADLINE
    assert parse(["--once"]).patience == math.inf
    assert parse(["--once", "--deadline", "5"]).patience == 5


@pytest.mark.parametrize(
    "words",
    [
        "--budget 0",
        "--budget -1",
        "--budget 20GiB",
        "--budget nan",
        "--budget 2Ei",
        "--budget 0.1",
        "--budget=",
        "--rate 0",
        "--rate NaN",
        "--rate 1.5.2",
        "--interval 0",
        "--interval -1",
        "--interval nan",
        "--interval 30s",
        "--deadline inf",
        "--deadline 0",
        "--port 70000",
        "--port x",
        "--port -1",
        "--targets foo",
        "--targets=",
        "--targets weights,",
        "--dir model",
        "--dir=",
        "--on-exit never",
        "--node-label a/b/c",
        "--node-label -x",
        "--node-label",
        "--lock=yes",
        "--unknown",
        "stray",
        "--bud 1",
    ],
)
def test_a_wrong_option_is_refused_by_name(words: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(words.split())
    message = str(raised.value)
    assert "\n" not in message
    assert words.split(maxsplit=1)[0].partition("=")[0] in message
    assert message.endswith("warm --help shows what there is")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("21474836480", 20 << 30),
        ("20Gi", 20 << 30),
        ("1.5G", 1_500_000_000),
        (".5Ki", 512),
        ("1.Mi", 1 << 20),
        ("1.4e+11", 140_000_000_000),
        ("2E3", 2000),
        ("1E", 10**18),
        ("128k", 128_000),
        (" 7 ", 7),
    ],
)
def test_amounts_are_those_of_kubernetes(text: str, size: int) -> None:
    assert sizes.parse(text) == size


@pytest.mark.parametrize("text", ["", "x", "1KB", "1ki", "1 Gi", "1e", "1e999", "٣", "1m", "0x10", "1_000", "--1"])
def test_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"amount|byte|EiB"):
        sizes.parse(text)


@pytest.mark.parametrize(
    ("size", "said"),
    [(0, "0 B"), (1023, "1023 B"), (1 << 20, "1.0 MiB"), (3 << 40, "3.0 TiB"), (1 << 60, "1048576.0 TiB")],
)
def test_amounts_are_said_in_the_units_of_limits(size: int, said: str) -> None:
    assert sizes.format_binary(size) == said
