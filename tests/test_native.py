"""The native core alone, without Python: compiled here, and run under the compiler's sanitizers."""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NATIVE = HERE.parent / "native"
COMPILER = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
SANITIZERS = {
    "address and undefined behaviour": [
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined",
        "-fno-omit-frame-pointer",
    ],
    "threads": ["-fsanitize=thread"],
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Call it with a program of tests/native and a sanitizer: compiled with the core."""
    if COMPILER is None:
        pytest.skip("there is no C++ compiler")
    if not (NATIVE / "api.h").exists():
        pytest.skip("the sources of the core are not beside the tests")
    folder = tmp_path_factory.mktemp("native")

    def build(program: str, sanitizer: str) -> Path:
        core = [path for path in NATIVE.glob("*.cpp") if path.name != "os_posix.cpp"]
        options = ["-std=c++17", "-O1", "-g1", "-pthread", *WARNINGS, *SANITIZERS[sanitizer]]
        objects = folder / sanitizer.split(maxsplit=1)[0]
        objects.mkdir(exist_ok=True)

        def compile_one(source: Path) -> subprocess.CompletedProcess[str]:
            target = objects / f"{source.stem}.o"
            if target.exists():
                return subprocess.CompletedProcess([], 0)
            command = [COMPILER, *options, "-I", NATIVE, "-c", source, "-o", target]
            return subprocess.run(command, capture_output=True, text=True, check=False)

        with ThreadPoolExecutor() as pool:
            for done in pool.map(compile_one, [*core, HERE / "native" / f"{program}.cpp"]):
                assert done.returncode == 0, done.stderr
        linked = [objects / f"{source.stem}.o" for source in core] + [objects / f"{program}.o"]
        command = [COMPILER, *options, *linked, "-o", objects / program]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "cannot find" in done.stderr and "san" in done.stderr:
            pytest.skip(f"the compiler has no sanitizer of {sanitizer}")
        assert done.returncode == 0, done.stderr
        return objects / program

    return build


def run(program: Path, folder: Path) -> None:
    """Run a compiled program; it must end well and print nothing."""
    # Not with a library that is preloaded for Python; addresses where sanitizers expect them.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    environment["ASAN_OPTIONS"] = "handle_sigbus=0:detect_leaks=1"
    environment["TSAN_OPTIONS"] = "handle_sigbus=0:halt_on_error=1"
    setarch = shutil.which("setarch")
    fixed = [setarch, os.uname().machine, "-R"] if setarch else []
    done = subprocess.run(
        [*fixed, program], cwd=folder, env=environment, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "sanitizer"),
    [
        ("api_test", "address and undefined behaviour"),
        ("threads_test", "address and undefined behaviour"),
        ("threads_test", "threads"),
    ],
)
def test_without_python(program, sanitizer, compiled, tmp_path):
    """The core alone does what api.h says, on many threads too, and no sanitizer objects."""
    run(compiled(program, sanitizer), tmp_path)


@pytest.mark.slow
def test_header_is_c(tmp_path):
    """api.h is a C header, too."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("there is no C compiler")
    source = tmp_path / "header.c"
    source.write_text('#include <stdint.h>\n#include "api.h"\nint main(void) { return SA_OK; }\n')
    command = [compiler, "-std=c11", "-pedantic", *WARNINGS, "-I", NATIVE, "-c", source]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
