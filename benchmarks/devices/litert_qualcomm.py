"""LiteRT's ahead-of-time compiler for Qualcomm's HTP: what it takes of a file, without running it.

LiteRT's wheel brings the compiler and its plugin for Qualcomm; the libraries of Qualcomm that the
plugin needs come with onnxruntime-qnn. Each partition becomes one operator of the compiled file;
operators outside run on the phone's CPU.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from benchmarks.devices.device import Device, Execution, Subject, Takes
from runtime.errors import UserError
from runtime.qualcomm_htp import PACKAGE, htp_precisions, missing_qnn
from runtime.session import FloatPicture
from runtime.snapdragon import Snapdragon

_COMPILER = Path("tools", "apply_plugin_main")
_PLUGINS = Path("vendors", "qualcomm", "compiler")
_PARTITIONS = re.compile(
    r"selected (\d+) ops, from a total of (\d+) ops\. resulted in (\d+) partitions"
)
_ERROR = re.compile(r"\[ ERROR \]\s+(.+)")


class LiteRTQualcomm(Device):
    """The compiler for one SoC.

    Attributes:
        soc: The SoC.
    """

    evidence = "compiled"
    time_limit = 180.0

    def __init__(self, soc: Snapdragon) -> None:
        self.soc = soc
        self.name = f"litert-qualcomm-{soc.name}"
        self.title = f"LiteRT for Qualcomm {soc.name.upper()}"
        self.takes = Takes({"tflite": htp_precisions(soc)}, fixed_size=True)

    def missing(self) -> str | None:
        """Return what is missing: LiteRT with its compiler, or Qualcomm's libraries."""
        if (found := missing_qnn()) is not None:
            return found
        if find_spec("ai_edge_litert") is None or not (_litert() / _COMPILER).exists():
            return "needs LiteRT with its compiler: pip install 'ai-edge-litert>=2.3'"
        return None

    def versions(self) -> Mapping[str, str]:
        """Return the versions of the compiler and of Qualcomm's libraries."""
        return {"LiteRT": metadata.version("ai-edge-litert"), PACKAGE: metadata.version(PACKAGE)}

    def execute(self, subject: Subject, pictures: Sequence[FloatPicture]) -> Execution:
        """Compile the file; the pictures are not used.

        Raises:
            UserError: If the compiler refuses the file or compiles none of its operators.
        """
        with tempfile.TemporaryDirectory() as name:
            compiled = Path(name, subject.path.name)
            said = self._compile(subject.path, compiled, Path(name))
            size = compiled.stat().st_size if compiled.exists() else 0
            left = _operators(compiled) if size else Counter()
        found = _PARTITIONS.search(said)
        if not size or found is None:
            raise UserError(f"the compiler for {self.soc.name} fails ({_reason(said)})")
        taken, operators, partitions = map(int, found.groups())
        if taken == 0:
            raise UserError(f"the compiler for {self.soc.name} takes none of {operators} operators")
        return Execution(
            f"LiteRT {metadata.version('ai-edge-litert')}, HTP v{self.soc.architecture}",
            None,
            self.versions(),
            fallbacks={op: count for op, count in left.items() if op != "CUSTOM"},
            facts={
                "operators": operators,
                "compiled": taken,
                "partitions": partitions,
                "bytes": size,
            },
        )

    def _compile(self, path: Path, compiled: Path, folder: Path) -> str:
        """Compile into ``compiled`` and return what the compiler writes."""
        qnn = _package("onnxruntime_qnn")
        # The plugin names the library of another processor (LPAI), of which it uses no symbol and
        # which onnxruntime-qnn leaves out; any library under that name lets it load.
        (folder / "libQnnLpai.so").symlink_to(qnn / "libQnnSystem.so")
        libraries = [str(qnn), str(_litert()), str(folder)]
        run = subprocess.run(
            [
                str(_litert() / _COMPILER),
                "--cmd=apply",
                f"--model={path}",
                f"--o={compiled}",
                "--soc_manufacturer=Qualcomm",
                f"--soc_model={self.soc.name.upper()}",
                f"--libs={_litert() / _PLUGINS}",
                "--err=--",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)},
            check=False,
        )
        return run.stdout.decode(errors="replace")


def _litert() -> Path:
    return _package("ai_edge_litert")


def _package(name: str) -> Path:
    """Return the folder of an installed package without importing it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise UserError(f"{name} is not installed; run pip install 'reslite[qnn]'")
    return Path(spec.origin).parent


def _operators(path: Path) -> Counter[str]:
    """Return how often each operator is in a TFLite file."""
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    return Counter(
        names[model.operatorCodes[one.opcodeIndex].builtinCode]
        for graph in model.subgraphs
        for one in graph.operators
    )


def _reason(said: str) -> str:
    """Return the last error that Qualcomm's compiler writes, or its last line."""
    errors = _ERROR.findall(said)
    lines = said.strip().splitlines()
    return str(errors[-1]) if errors else lines[-1].strip() if lines else "without a word"
