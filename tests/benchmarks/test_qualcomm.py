"""Qualcomm's HTP on a tiny CARN-M; most tests need the extra 'qnn'."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import runtime
from benchmarks.devices import litert_qualcomm
from benchmarks.devices.catalogue import DEVICES
from benchmarks.devices.device import Subject
from benchmarks.devices.isolated import execute_isolated
from benchmarks.devices.litert_qualcomm import LiteRTQualcomm
from benchmarks.devices.qualcomm_htp import QualcommHTP
from runtime.errors import UserError
from runtime.manifest import Artifact, TensorInfo
from runtime.qualcomm_htp import htp_options, missing_qnn
from runtime.snapdragon import SNAPDRAGONS

HTP_V68, HTP_V75 = DEVICES["qualcomm-htp-v68"], DEVICES["qualcomm-htp-v75"]

needs_qnn = pytest.mark.skipif(missing_qnn() is not None, reason=str(missing_qnn()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("qualcomm")


@pytest.fixture
def tiny_file(folder, write_artifact):
    def write(format: str, precision: str, size=(16, 16)) -> Subject:
        artifact = write_artifact(folder, format, precision, size=size)
        return Subject(folder / artifact.file, artifact, 2)

    return write


@pytest.fixture
def picture(astronaut):
    return astronaut[100:116, 220:236].astype(np.float32) / 255


def decibels(one, other):
    return 10 * np.log10(1 / np.mean((one - other) ** 2))


@needs_qnn
def test_int8_is_executed_whole(tiny_file, picture):
    subject = tiny_file("onnx", "int8")
    done = execute_isolated(HTP_V68, subject, [picture])
    (output,) = done.outputs
    with runtime.open(subject.path, verify=False) as session:
        expected = session.run(picture)
    assert output.shape == (32, 32, 3)
    assert 30 < decibels(output, expected) < 120  # the HTP's arithmetic is not ONNX Runtime's
    assert done.fallbacks == {}
    assert "HTP v68" in done.runtime
    assert "htp_arch=68" in done.settings


@needs_qnn
def test_float_is_executed_in_half_arithmetic(tiny_file, picture):
    subject = tiny_file("onnx", "float32")
    (output,) = execute_isolated(HTP_V75, subject, [picture]).outputs
    with runtime.open(subject.path, verify=False) as session:
        expected = session.run(picture)
    assert 50 < decibels(output, expected) < 100


@needs_qnn
def test_operators_that_htp_refuses_are_all_named(folder, picture):
    shape = (1, 3, 16, 16)
    nodes = [
        helper.make_node("Det", ["image"], ["determinants"]),
        helper.make_node("Unsqueeze", ["determinants", "axes"], ["wide"]),
        helper.make_node("Add", ["image", "wide"], ["sum"]),
        helper.make_node("Hardmax", ["sum"], ["hard"]),
        helper.make_node("Shrink", ["hard"], ["restored_image"]),
    ]
    graph = helper.make_graph(
        nodes,
        "odd",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("restored_image", TensorProto.FLOAT, shape)],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])],
    )
    path = folder / "odd_x1_float32.onnx"
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    tensor = TensorInfo("image", "NCHW", "float32", shape)
    artifact = Artifact(
        path.name, "onnx", "float32", "0" * 64, 1, tensor, tensor, "ort-cpu", (), 1, {"Det": 1}
    )
    with pytest.raises(UserError, match=r"HTP v75 does not take: 1 Det, 1 Hardmax, 1 Shrink"):
        execute_isolated(HTP_V75, Subject(path, artifact, 1), [picture])


@needs_qnn
@pytest.mark.parametrize(("format", "precision"), [("tflite", "int8"), ("tflite", "float32")])
def test_litert_compiles_every_operator_into_one_partition(tiny_file, format, precision):
    subject = tiny_file(format, precision)
    done = execute_isolated(LiteRTQualcomm(SNAPDRAGONS["sm8650"]), subject, [])
    operators = sum(subject.artifact.operators.values())
    assert done.outputs is None
    assert done.fallbacks == {}
    assert done.facts["operators"] == done.facts["compiled"] == operators
    assert done.facts["partitions"] == 1
    assert done.facts["bytes"] > 1000


def test_a_compiler_that_fails_is_told(monkeypatch, tiny_file):
    def fails(command, **options):
        said = b"[ ERROR ]   <E> could not create op\nclosing\n"
        return subprocess.CompletedProcess(command, 0, said)

    monkeypatch.setattr(litert_qualcomm.subprocess, "run", fails)
    monkeypatch.setattr(litert_qualcomm, "_package", lambda name: Path("/"))
    with pytest.raises(UserError, match=r"compiler for sm8650 fails \(<E> could not create op\)"):
        LiteRTQualcomm(SNAPDRAGONS["sm8650"]).execute(tiny_file("tflite", "int8"), [])


def test_floats_and_free_sizes_are_refused_with_the_reason(tiny_file):
    assert "int8" in HTP_V68.refusal(tiny_file("onnx", "float32"))
    assert HTP_V75.refusal(tiny_file("onnx", "float32")) is None
    assert "--size" in HTP_V68.refusal(tiny_file("onnx", "int8", size=None))


def test_options_name_architecture_and_soc():
    soc = SNAPDRAGONS["sm8750"]
    int8, float16 = htp_options(soc, "int8"), htp_options(soc, "float16")
    assert int8["htp_arch"] == float16["htp_arch"] == "79"
    assert "enable_htp_fp16_precision" not in int8
    assert float16["soc_model"] == "69"


def test_a_missing_extra_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr("runtime.qualcomm_htp.find_spec", lambda name: None)
    assert "pip install 'reslite[qnn]'" in QualcommHTP(SNAPDRAGONS["sm8650"]).missing()
    assert "pip install 'reslite[qnn]'" in LiteRTQualcomm(SNAPDRAGONS["sm8650"]).missing()


def test_other_machines_are_refused(monkeypatch):
    monkeypatch.setattr("runtime.qualcomm_htp.platform.machine", lambda: "aarch64")
    assert "x86-64" in QualcommHTP(SNAPDRAGONS["sm8650"]).missing()
