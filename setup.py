"""Builds the compiled ops; everything else about the package stands in pyproject.toml.

The CPU module is always built, and the CUDA module whenever nvcc is found; no GPU is needed.
Neither is required: without them the package works, with the ops in plain PyTorch.

PCNN_CUDA=0 leaves the CUDA module out; PCNN_CUDA=1 fails where it cannot be built.
PCNN_CUDA_ARCHS="90" compiles for these compute capabilities alone, which is quicker.
PCNN_STRICT=1 makes warnings errors (CI does; a user's other compiler may warn of something new).
PCNN_SANITIZE=1 builds the CPU module with AddressSanitizer and UndefinedBehaviorSanitizer.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
# As in the CUDA module, one rounding for each operation: results are the same on every processor.
# The code uses neither errno nor floating-point traps; without them more loops vectorise.
UNIX_FLAGS = [
    *("-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
    *("-Wall", "-Wextra", "-pthread"),
]
STRICT = os.environ.get("PCNN_STRICT") == "1"
SANITIZE_FLAGS = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


def load_recipe():
    """pcnn/ops/compiler.py, loaded alone: importing pcnn needs torch, which no build has."""
    spec = importlib.util.spec_from_file_location("compiler", ROOT / "pcnn" / "ops" / "compiler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compile_cuda(recipe, compiler, out, include):
    """The CUDA module by one compiler, and the compute capabilities it is for, as words."""
    native = recipe.architectures(compiler)
    if not native:
        raise ValueError(f"knows none of compute capability {recipe.OLDEST} to {recipe.NEWEST}")
    chosen = os.environ.get("PCNN_CUDA_ARCHS", "").split()
    unknown = [name for name in chosen if not name.isdigit() or int(name) not in native]
    if unknown:
        raise ValueError(
            f"PCNN_CUDA_ARCHS must be of {' '.join(map(str, native))}, as this compiler knows "
            f"them, got {' '.join(unknown)}"
        )
    native = [int(name) for name in chosen] or native
    recipe.cuda_module(
        out, CSRC, include, compiler=compiler, native=native, ptx=max(native), strict=STRICT
    )
    return list(map(str, native))


class BuildOps(build_ext):
    """Builds what this machine can build, and says in one line what that was."""

    def run(self):
        if not self.inplace:
            # The sources travel with the package, for the CUDA module compiled on first use.
            target = Path(self.build_lib, "pcnn", "_csrc")
            shutil.copytree(CSRC, target, dirs_exist_ok=True)
        self.built = []
        super().run()
        print(f"pcnn: built {' and '.join(self.built) or 'no compiled ops'}", flush=True)

    def build_extension(self, ext):
        if ext.name == "pcnn._cuda":
            self.build_cuda(ext)
        else:
            self.build_cpu(ext)

    def build_cpu(self, ext):
        if self.compiler.compiler_type == "unix":
            sanitize = SANITIZE_FLAGS if os.environ.get("PCNN_SANITIZE") == "1" else []
            ext.extra_compile_args += UNIX_FLAGS + (["-Werror"] if STRICT else []) + sanitize
            ext.extra_link_args += ["-pthread", *sanitize]
        try:
            super().build_extension(ext)
        except Exception as error:  # setuptools raises what its compiler classes raise
            if STRICT:
                raise
            print(
                f"warning: pcnn: the CPU ops could not be compiled ({error}); the package works "
                "without them, slower. A C++17 compiler such as g++ builds them.",
                file=sys.stderr,
            )
            return
        self.built.append("the CPU ops")

    def build_cuda(self, ext):
        wanted = os.environ.get("PCNN_CUDA", "")
        if wanted not in ("", "0", "1"):
            raise SystemExit(f"PCNN_CUDA must be 0 or 1, got {wanted!r}")
        if wanted == "0":
            return
        recipe = load_recipe()
        compilers = recipe.nvccs()
        if not compilers and wanted == "1":
            raise SystemExit("PCNN_CUDA=1, but no nvcc was found: set CUDACXX or CUDA_HOME")
        out = Path(self.get_ext_fullpath(ext.name))
        sources = [Path(__file__), ROOT / "pcnn" / "ops" / "compiler.py", *CSRC.iterdir()]
        sources += compilers[:1]
        if out.exists() and all(out.stat().st_mtime > path.stat().st_mtime for path in sources):
            # Compiled by an earlier build in this folder; minutes are not spent on it again.
            self.built.append("the CUDA ops (before)")
            return
        out.parent.mkdir(parents=True, exist_ok=True)
        include = [*self.include_dirs, *ext.include_dirs]
        failures = []
        for compiler in compilers:
            try:
                native = compile_cuda(recipe, compiler, out, include)
            except (OSError, ValueError) as error:
                failures.append(f"{compiler}: {error}")
            except subprocess.CalledProcessError as error:
                failures.append(f"{compiler}:\n{error.output}")
            else:
                self.built.append(f"the CUDA ops (compute capability {', '.join(native)})")
                return
        if failures and (wanted == "1" or os.environ.get("PCNN_CUDA_ARCHS")):
            raise SystemExit("\n".join(["pcnn: the CUDA ops could not be compiled:", *failures]))
        if failures:
            print(
                "warning: pcnn: the CUDA ops could not be compiled; they will be tried again at "
                "their first use.",
                *failures,
                sep="\n",
                file=sys.stderr,
            )

    def get_outputs(self):
        """What was built, of what was wanted, and the sources that go with it."""
        outputs = [path for path in super().get_outputs() if Path(path).exists()]
        return outputs + [str(path) for path in Path(self.build_lib, "pcnn", "_csrc").glob("*")]


def extensions():
    headers = [str(path.relative_to(ROOT)) for path in sorted(CSRC.glob("*.h"))]
    # Their hash is compiled in, and covers what both modules are made of.
    others = ["pcnn/ops/compiler.py", *(f"csrc/{path.name}" for path in sorted(CSRC.glob("*.cu")))]
    cpu = Pybind11Extension(
        "pcnn._C",
        ["csrc/bindings.cpp", *(f"csrc/{path.name}" for path in sorted(CSRC.glob("*_cpu.cpp")))],
        cxx_std=17,
        define_macros=[
            ("PCNN_BUILD", '"C++"'),
            ("PCNN_SOURCES", f'"{load_recipe().sources_hash(CSRC)}"'),
        ],
        depends=[*headers, *others],
        optional=True,
    )
    cuda = Extension(
        "pcnn._cuda",
        [f"csrc/{path.name}" for path in sorted(CSRC.glob("*_cuda.cu"))],
        include_dirs=cpu.include_dirs,
        depends=[*headers, "csrc/bindings.cpp"],
        optional=True,
    )
    return [cpu, cuda]


ParallelCompile(default=os.cpu_count() or 1).install()
setup(ext_modules=extensions(), cmdclass={"build_ext": BuildOps})
