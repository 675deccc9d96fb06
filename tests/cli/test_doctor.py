"""``vidcls doctor``: what it finds, what it says when something is broken, and its exit code."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement
from typer.testing import CliRunner, Result

from vidcls.cli import doctor as command
from vidcls.cli import guard
from vidcls.doctor import imports as probes
from vidcls.doctor import report as environment
from vidcls.doctor.report import Report, Row, Section
from vidcls.paths import hugging_face_cache


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variables, registries or caches of the person who runs the tests; one thread for torch."""
    for name in os.environ:
        if name.startswith(("VIDCLS_", "HF_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


WORKING = {
    "torch": {"threads": 1, "cuda_build": None, "cuda": [], "mps": False},
    "numpy": {},
    "av": {"libraries": {"libavcodec": "1"}, "decoders": ["h264"]},
    "decord": {},
}


@pytest.fixture
def only_av_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other packages are taken to work: importing torch takes seconds."""
    start, finish = probes.start, probes.finish
    monkeypatch.setattr(probes, "start", lambda name: start(name) if name == "av" else name)
    monkeypatch.setattr(probes, "finish", lambda p: WORKING[p] if isinstance(p, str) else finish(p))


def run(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(guard(command.doctor))

    @app.command()
    def other(model: str = typer.Option("x", envvar="VIDCLS_MODEL")) -> None:
        """A command whose option reads a variable."""

    return CliRunner().invoke(app, ["doctor", *arguments])


def rows(result: Result) -> dict[str, dict[str, str]]:
    return {row["name"]: row for section in json.loads(result.stdout)["sections"] for row in section["rows"]}


def fake_package(folder: Path, name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a package before the installed one for child processes."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.usefixtures("only_av_is_tried")
def test_plain_text_says_what_is_here() -> None:
    result = run()
    assert result.exit_code == 0, result.output
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert lines[-1] == ["Clips can be classified here."]
    assert ["packages", "torch", importlib.metadata.version("torch")] in lines
    assert ["decoders", "av", importlib.metadata.version("av")] in lines
    assert ["decoders", "codec h264", "decoded by h264"] in lines
    assert {line[0] for line in lines[:-1]} >= {"packages", "decoders", "devices", "models", "caches"}
    assert "\x1b" not in result.stdout


def test_json_says_the_same() -> None:
    result = run("--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["ok"] is True
    found = rows(result)
    assert found["python"]["value"].startswith(".".join(map(str, sys.version_info[:3])))
    for name in ("torch", "numpy", "safetensors", "av"):
        assert found[name]["value"] == importlib.metadata.version(name)
        assert found[name]["status"] == "ok"
    assert "libavcodec" in found["ffmpeg"]["value"]
    assert found["torch threads"]["value"] == "1"


BROKEN = {
    "raises": ("raise ImportError('libav is gone')", "ImportError: libav is gone"),
    "kills": ("import os, sys; print('half', flush=True); os._exit(9)", "ends the process (exit code 9)"),
    "exits": ("import sys; sys.exit('no driver')", "no driver"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_decoder_is_named_and_stops_nothing(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, words = BROKEN[how]
    fake_package(tmp_path / "fake", "av", code, monkeypatch)
    answer = probes.finish(probes.start("av"))
    assert words in answer["error"]


@pytest.mark.usefixtures("only_av_is_tried")
def test_exit_code_3_without_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_package(tmp_path / "fake", "av", "raise ImportError('libav is gone')", monkeypatch)
    result = run("--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["ok"] is False
    found = rows(result)
    assert found["av"]["status"] == "broken"
    assert "pip install --force-reinstall 'av" in found["av"]["remedy"]
    assert found["torch"]["status"] == "ok"


def test_a_hanging_import_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_package(tmp_path / "fake", "decord", "import time; time.sleep(600)", monkeypatch)
    monkeypatch.setattr(probes, "PROBE_TIMEOUT", 1.0)
    process = probes.start("decord")
    assert "does not end within" in probes.finish(process)["error"]
    assert process.returncode is not None


def test_what_libraries_print_while_loading_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_package(tmp_path / "fake", "decord", "print('hello {')\n__version__ = '9'", monkeypatch)
    assert probes.finish(probes.start("decord")) == {"version": "9"}


def test_the_current_folder_is_not_searched_for_packages(tmp_path: Path) -> None:
    trap = tmp_path / "here" / "av.py"
    trap.write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close(); raise ImportError('trap')")
    assert "error" not in probes.finish(probes.start("av"))
    assert not (tmp_path / "sprung").exists()


def test_without_h264_no_clip_can_be_read() -> None:
    av = {"version": "1", "libraries": {"libavcodec": "1"}, "decoders": ["vp9"]}
    found = {row.name: row for row in environment._decoders({"av": av, "decord": {"version": "0.6.0"}})}
    assert found["codec h264"].status == "missing"
    assert "ffmpeg -i" in found["codec h264"].remedy
    assert found["codec vp9"] == Row("codec vp9", "decoded by vp9")
    assert found["codec av1"].status == "note"
    broken = Report((Section("decoders", tuple(found.values())),))
    assert [row.name for row in broken.problems] == ["codec h264"]
    assert command.verdict(broken) == "No clip can be classified here: see codec h264."


def test_a_missing_or_old_package_names_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Requirement("torch>=2.4")
    monkeypatch.setattr(environment, "_version", lambda name: None)
    assert environment._package("torch", wanted, None) == Row(
        "torch", "not installed", "missing", "pip install 'torch>=2.4'", required=True
    )
    monkeypatch.setattr(environment, "_version", lambda name: "2.1.0")
    old = environment._package("torch", wanted, {"version": "2.1.0"})
    assert (old.status, old.remedy) == ("broken", "pip install 'torch>=2.4'")
    monkeypatch.setattr(environment, "_version", lambda name: "2.5.0+cpu")
    assert environment._package("torch", wanted, {"version": "2.5.0"}).status == "ok"


def test_an_optional_package_is_had_through_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_version", lambda name: None)
    monkeypatch.setattr(
        environment,
        "requirements",
        lambda: [
            (Requirement("timm>=1"), "timm"),
            (Requirement("zarr"), "big"),
            (Requirement("ruff"), "test"),
        ],
    )
    found = {row.name: row for row in environment._optional()}
    assert found["timm"].remedy == "pip install 'vidcls[timm]'"
    assert found["zarr"].remedy == "pip install 'vidcls[big]'"
    assert found["ray"].remedy == "pip install ray"
    assert "ruff" not in found
    assert not any(row.required for row in found.values())


def test_decord_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_version", lambda name: None)
    row = environment._decord({"error": "cannot be imported"})
    assert (row.status, row.required) == ("note", False)
    assert "PyAV reads every clip" in row.value


def test_requirements_are_those_of_the_metadata() -> None:
    found = {(r.name.lower(), extra) for r, extra in environment.requirements()}
    assert ("torch", None) in found
    assert ("timm", "timm") in found


@pytest.mark.usefixtures("only_av_is_tried")
def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDCLS_MODEL", "vivit-fe")
    monkeypatch.setenv("VIDCLS_MODLE", "https://me:secret@host/x")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    result = run("--json")
    found = rows(result)
    assert found["VIDCLS_MODEL"]["status"] == "ok"
    assert found["VIDCLS_MODLE"]["status"] == "note"
    assert "VIDCLS_MODEL" in found["VIDCLS_MODLE"]["remedy"]
    assert "secret" not in result.stdout
    assert result.exit_code == 0


@pytest.mark.usefixtures("only_av_is_tried")
def test_a_broken_registry_is_exit_code_3(tmp_path: Path) -> None:
    (tmp_path / "here" / "models.yaml").write_text("models: {x: {architecture: nonsense}}\n")
    result = run("--json")
    assert result.exit_code == 3
    broken = [row for row in rows(result).values() if row["status"] == "broken"]
    assert len(broken) == 1
    assert "models.yaml" in broken[0]["name"] + broken[0]["value"]


def test_table_for_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(
        (
            Section("packages", (Row("torch", "[red]2.0", "broken", "pip install 'torch>=2.4'", True),)),
            Section("environment", (Row("VIDCLS_MODEL", "a\x1b[2Jb\n", "ok"),)),
            Section("nothing", ()),
        )
    )
    command._print_table(report)
    shown = capsys.readouterr().out
    assert "[red]2.0" in shown
    assert "broken: pip install 'torch>=2.4'" in shown
    assert "\x1b[2J" not in shown
    assert "a\\x1b[2Jb\\n" in shown
    assert "nothing" not in shown
    assert "No clip can be classified here: see torch." in shown


def test_a_terminal_gets_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "report", lambda *_: Report((Section("a", (Row("b", "c"),)),)))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    context = typer.Context(typer.main.get_command(_app()))
    assert command.doctor(context) == 0
    assert "a\tb\tc" not in capsys.readouterr().out


def _app() -> typer.Typer:
    app = typer.Typer()
    app.command()(guard(command.doctor))
    return app


def test_caches(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    assert "empty" in environment._cache("x", folder / "not" / "yet").value
    (folder / "blobs").mkdir(parents=True)
    (folder / "blobs" / "a").write_bytes(bytes(3 << 20))
    with contextlib.suppress(OSError):  # Windows asks for a privilege
        (folder / "link").symlink_to(folder / "blobs" / "a")
    assert environment.folder_size(folder) == (3 << 20, 1, True)
    assert environment.folder_size(folder, timeout=-1.0) == (0, 0, False)
    row = environment._cache("x", folder)
    assert row.status == "ok"
    assert "3.0 MiB in 1 files" in row.value
    blocked = environment._cache("x", folder / "blobs" / "a" / "deeper")
    assert blocked.status == "broken"
    assert blocked.remedy


def test_hugging_face_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert hugging_face_cache() == tmp_path / "cache" / "huggingface" / "hub"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    assert hugging_face_cache() == tmp_path / "home" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert hugging_face_cache() == tmp_path / "hub"


def test_devices_of_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = {"name": "H200", "memory": 140 << 30, "capability": "9.0", "bf16": True}
    probe = {"threads": 8, "cuda_build": "12.8", "cuda": [gpu], "mps": True}
    found = {row.name: row.value for row in environment._devices(probe)}
    assert found["cuda:0"] == "H200, 140.0 GiB, compute capability 9.0, bfloat16"
    assert found["mps"] == "available"
    monkeypatch.setattr(environment.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    for build, words in ((None, "without CUDA"), ("12.8", "sees no device")):
        row = environment._no_cuda({**probe, "cuda": [], "cuda_build": build})
        assert words in row.value
        assert row.remedy
    broken = environment._devices({"error": "cannot be imported"})
    assert broken[-1].status == "note"


def test_nothing_heavy_is_imported_by_the_module() -> None:
    heavy = {"torch", "av", "decord", "numpy", "rich.table"}
    code = f"import sys, vidcls.doctor.report, vidcls.cli.doctor; print(*{heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


def test_a_package_of_another_name_that_does_the_same_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    for present in ("scenedetect", "scenedetect-headless", None):

        def version(name: str, present: str | None = present) -> str:
            if name == present:
                return "0.7"
            raise importlib.metadata.PackageNotFoundError(name)

        with monkeypatch.context() as patch:
            patch.setattr(importlib.metadata, "version", version)
            found = {row.name: row for row in environment._optional()}["scenedetect-headless"]
        assert found.status == ("note" if present is None else "ok")
        assert "timelines by shots" in found.value
