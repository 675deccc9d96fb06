from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest
import yaml

import vidcls.config.yaml as vidcls_yaml
from vidcls.config import (
    InputSpec,
    builtin_registry_path,
    load_registry,
    parse_yaml,
    read_yaml,
    registry_paths,
)
from vidcls.errors import ConfigError, UsageError
from vidcls.models import config_keys


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("APPDATA", str(tmp_path / "config"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_registry_that_ships_would_pass_as_a_strangers() -> None:
    text = builtin_registry_path().read_text(encoding="utf-8")
    assert parse_yaml(text) == parse_yaml(text, trusted=True)


def test_the_registry_that_ships_is_valid() -> None:
    registry = load_registry()
    for spec in registry.values():
        assert spec.config.keys() <= config_keys(spec.architecture), spec.name
    assert len(registry) >= 12
    assert registry["vivit-l-16x2-fe-k600"].config["temporal_depth"] == 24
    assert registry["vivit-l-16x2-fe-k600"].config["num_classes"] == 600
    assert registry["vivit-l-16x2-fe-k600"].published.top1 == 81.6
    assert registry["vivit-fe"].weights is None
    assert registry["vivit-b-16x2-k400"].input == InputSpec(fps=25)


def test_files_are_laid_over_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = write(
        tmp_path / "config" / "vidcls" / "models.yaml", "models: {mine: {base: vivit-fe, dataset: a}}"
    )
    here = write(Path("models.yaml"), "models: {mine: {base: mine, input: {num_views: 2}}}")
    extra = write(tmp_path / "x.yaml", "default: mine\nmodels: {yours: {base: mine, weights: {path: w.bin}}}")
    monkeypatch.setattr("vidcls.config.registry.user_config_dir", lambda: user.parent)
    assert [p.resolve() for p in registry_paths(extra)[1:]] == [p.resolve() for p in (user, here, extra)]
    registry = load_registry(extra)
    assert registry.default == "mine"
    assert (registry["mine"].dataset, registry["mine"].input.num_views, registry["mine"].input.stride) == (
        "a",
        2,
        2,
    )
    weights = registry["yours"].weights
    assert weights is not None
    assert weights.path == str(tmp_path / "w.bin")


def test_all_problems_come_together_with_hints(tmp_path: Path) -> None:
    extra = write(
        tmp_path / "x.yaml",
        """
        default: vivit-ff
        modls: {}
        models:
          a: {architecture: vivit-fee}
          b: {base: vivit-fe, input: {strides: 3, num_crops: 2}, weights: {url: "ftp://x"}}
          c: {base: vivit-fe, config: {depht: 3}}
          d: {base: nothing, architecture: vivit-fe}
          e: {base: vivit-fe, weights: {hub: a/b, path: c}}
        """,
    )
    with pytest.raises(ConfigError) as caught:
        load_registry(extra)
    text = str(caught.value)
    for part in (
        "modls: unknown key, did you mean 'models'?",
        "models.a.architecture: unknown architecture 'vivit-fee', did you mean 'vivit-fe'?",
        "models.b.input.strides: unknown key, did you mean 'stride'?",
        "models.b.input.num_crops",
        "models.b.weights.url",
        "unknown key 'depht', did you mean 'depth'?",
        "models.d.base: no entry before it is called 'nothing'",
        "models.e.weights: give exactly one of url, hub, path, bundled and package",
        "default: no model is called 'vivit-ff', did you mean 'vivit-fe'?",
    ):
        assert part in text


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'vivit-fe'"):
        load_registry()["vivit-fee"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x", "aliases"),
        ("a: 1\na: 2", "duplicate key 'a'"),
        ("{", "not valid YAML"),
        ("- 1", "must hold a mapping"),
        ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("a: {b: 1}\nc: {<<: {b: 1}}", "not valid YAML"),
        ("[1]: 2", "plain word"),
        ("1: 2", "must hold a mapping"),
        # Whether our bound or the parser's own is met first is the parser's affair.
        ("a: " + "[" * 100_000, "not valid YAML"),
        ("a: " + "{b: " * 100_000, "not valid YAML"),
        ("\n".join(" " * depth + "- " for depth in range(1000)), "not valid YAML"),
        # Deeper than our bound, and far from any that a parser may have.
        ("a: " + "[" * 65 + "]" * 65, "nested deeper than 64 levels"),
    ],
)
def test_hostile_yaml(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_yaml(write(tmp_path / "x.yaml", text))


@pytest.mark.parametrize(
    "text", ["a: &x [1]\nb: *x", "a: " + "[" * 65 + "]" * 65, "a: 1\na: 2", "a: [1, {b: 2}]"]
)
def test_yaml_is_read_alike_without_libyaml(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def outcome() -> object:
        try:
            return read_yaml(tmp_path / "x.yaml")
        except ConfigError as error:
            return str(error)

    write(tmp_path / "x.yaml", text)
    own = outcome()

    monkeypatch.setattr(vidcls_yaml, "_Loader", type("Plain", (vidcls_yaml._NoRepeats, yaml.SafeLoader), {}))
    assert outcome() == own


def test_unreadable_yaml(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none", tmp_path, tmp_path / "x"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_yaml(path)
    with (tmp_path / "big").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ConfigError, match="larger than"):
        read_yaml(tmp_path / "big")


def test_i13_3_a_registry_of_many_problems_says_the_first_ten(tmp_path: Path) -> None:
    lines = [f"  model-{number:04}: {{base: modle-{number:04}}}" for number in range(3000)]
    path = write(tmp_path / "many.yaml", "models:\n" + "\n".join(lines))
    start = time.perf_counter()
    with pytest.raises(ConfigError, match="6000 problems") as caught:
        load_registry(path)
    assert time.perf_counter() - start < 8
    shown = str(caught.value).splitlines()
    assert len(shown) == 12
    assert shown[-1].strip() == "and 5990 more"


def test_i13_3_unknown_keys_without_number(tmp_path: Path) -> None:
    keys = ", ".join(f"key{number}: 1" for number in range(20_000))
    path = write(
        tmp_path / "many.yaml", f"models:\n  a: {{architecture: vit-frames, config: {{{keys}}}, {keys}}}"
    )
    with pytest.raises(ConfigError) as caught:
        load_registry(path)
    assert len(str(caught.value)) < 3000


def test_i13_3_copies_of_a_large_entry(tmp_path: Path) -> None:
    """Entries that are laid over a large one do not each become as large."""
    keys = ", ".join(f"key{number}: 1" for number in range(20_000))
    entries = "\n".join(f"  b{number}: {{base: a, config: {{x: 1}}}}" for number in range(2_000))
    text = f"models:\n  a: {{architecture: vit-frames, config: {{{keys}}}}}\n{entries}"
    tracemalloc.start()
    with pytest.raises(ConfigError, match="has 20000 entries, more than any model"):
        load_registry(write(tmp_path / "many.yaml", text))
    assert tracemalloc.get_traced_memory()[1] < 500e6
    tracemalloc.stop()
