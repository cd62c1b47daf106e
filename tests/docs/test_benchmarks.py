"""The documents' claims about speed come from measurements; without a conclusion they claim nothing."""

from __future__ import annotations

from warmimage.bench.result import Result

from tests.builder.bench_facts import result, runs

from . import benchmarks

PLAIN = [10.0, 10.1, 10.2, 10.3, 10.4]
FAST = [5.0, 5.05, 5.1, 5.15, 5.2]


def figures(*results: Result) -> str:
    return " ".join(benchmarks.figures_text(results).split())


def test_a_figure_names_both_arms_and_its_interval() -> None:
    text = figures(result([*runs("plain", PLAIN), *runs("preload", FAST)]))
    assert "| without: `plain` | with: `preload` |" in text
    assert "| transformers 5.23.0 on CPU, my-model | warm | 10.20 s | 5.10 s | 2.00 (1.9" in text


def test_results_of_different_arms_name_them_in_each_row() -> None:
    first = result([*runs("plain", PLAIN), *runs("preload", FAST)])
    second = result([*runs("plain", PLAIN), *runs("zygote", FAST)])
    text = figures(first, second)
    assert "| without: `plain` | with |" in text
    assert "| 10.20 s | 5.10 s, `preload` |" in text
    assert "| 10.20 s | 5.10 s, `zygote` |" in text


def test_no_gain_is_claimed_without_a_conclusion() -> None:
    assert figures(result([*runs("plain", PLAIN), *runs("preload", PLAIN)])).endswith("| no difference was shown |")
    noisy = result([*runs("plain", PLAIN, others_during=0.5), *runs("preload", FAST, others_during=0.5)])
    assert figures(noisy).endswith("| no difference was shown |")


def test_a_loss_is_shown_as_a_loss() -> None:
    assert "| 0.50 (" in figures(result([*runs("plain", FAST), *runs("preload", PLAIN)]))


def test_a_worthless_result_gives_no_figure() -> None:
    differing = result([*runs("plain", PLAIN), *runs("preload", FAST, completion="goodbye")])
    assert "No speed is claimed" in figures(differing)
    assert "No speed is claimed" in figures()


def test_committed_measurements_are_small_and_hold_no_path_of_a_host() -> None:
    """Each file is one line of JSON; indentation would triple it."""
    paths = sorted((benchmarks.DOCS / "measurements").rglob("*.json"))
    assert paths
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert path.stat().st_size < 200_000
        assert len(text.splitlines()) == 1, path.name
        assert "/home/" not in text


def test_committed_results_hold_no_timeline() -> None:
    for _, committed in benchmarks.results():
        assert not any(run.events for run in committed.runs)


def test_the_marks_in_the_readme_are_kept() -> None:
    text = f"before\n{benchmarks.BEGIN}\nOLD\n{benchmarks.END}\nafter\n"
    made = benchmarks.readme_text(text)
    assert made.startswith(f"before\n{benchmarks.BEGIN}\n")
    assert made.endswith(f"{benchmarks.END}\nafter\n")
    assert "OLD" not in made
    assert benchmarks.readme_text(made) == made
    assert benchmarks.without_figures(made) == "before\n\nafter\n"
