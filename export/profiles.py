"""Target profiles: the rewrites that a file for one kind of machine gets. Data, not code.

The choices come from measurements (docs/profiles.md); the order of the rewrites matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runtime.errors import UserError
from runtime.formats import Format, Precision

FLOAT_FORM = (
    "fold_template_bank",
    "fold_output_shift",
    "fold_scaling",
    "convolve_blocks",
    "transposed_by_shuffles",
    "convolve_before_resizes",
    "resize_by_shuffles",
    "interpolate_by_convolutions",
)
"""The first rewrites of every file but those that keep the template bank; float16 files get their
gains (``export.headroom``) on the graph that they make."""

QUANTIZED_FORM = (
    *FLOAT_FORM,
    "carry_mean_as_channel",
    "convolve_before_pooling",
    "split_signs",
    "flatten_slopes",
)
"""The first rewrites of every int8 file; scales are chosen on the graph that they make."""


@dataclass(frozen=True)
class Profile:
    """A target.

    Attributes:
        name: Its name on the command line and in the manifest.
        format: The file format that the target runs.
        rewrites_float: Rewrites of float32 and float16 files, in order.
        further_float16: Rewrites of float16 files after those, in order.
        further_int8: Rewrites of int8 files after those of ``QUANTIZED_FORM``, in order.
    """

    name: str
    format: Format
    rewrites_float: tuple[str, ...]
    further_float16: tuple[str, ...] = ()
    further_int8: tuple[str, ...] = ()

    def rewrites(self, precision: Precision) -> tuple[str, ...]:
        """Return the rewrites for files of ``precision``, except those that need a table."""
        if precision == "int8":
            return (*QUANTIZED_FORM, *self.further_int8)
        float16 = self.further_float16 if precision == "float16" else ()
        return (*self.rewrites_float, *float16)


_WITHOUT_SHUFFLES = (
    "convolve_before_shuffles",
    "convolve_for_shuffles",
    "split_shuffled_convolutions",
    "use_dcr_shuffles",
)

PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="litert-cpu",
            format="tflite",
            rewrites_float=(
                *FLOAT_FORM,
                *_WITHOUT_SHUFFLES,
                "pad_before_convolutions",
            ),
            further_int8=(
                *_WITHOUT_SHUFFLES,
                "pad_before_convolutions",
            ),
        ),
        # With AMX one dense convolution is faster than four grouped ones.
        Profile(
            name="litert-cpu-amx",
            format="tflite",
            rewrites_float=(
                *FLOAT_FORM,
                "convolve_for_shuffles",
                "split_shuffled_convolutions",
                "use_dcr_shuffles",
                "pad_before_convolutions",
            ),
            further_int8=(
                "convolve_for_shuffles",
                "make_convolutions_dense",
                "use_dcr_shuffles",
                "pad_before_convolutions",
            ),
        ),
        # LiteRT's GPU kernels abort on int8 groups that do not fill slices of four channels.
        Profile(
            name="litert-gpu",
            format="tflite",
            rewrites_float=(
                *FLOAT_FORM,
                *_WITHOUT_SHUFFLES,
                "split_unaligned_groups",
                "pad_before_convolutions",
            ),
            further_int8=(
                *_WITHOUT_SHUFFLES,
                "split_unaligned_groups",
                "pad_before_convolutions",
            ),
        ),
        # ONNX Runtime before 1.32 computes float16 groups wrongly on arm64.
        Profile(
            name="ort-cpu",
            format="onnx",
            rewrites_float=(
                *FLOAT_FORM,
                "convolve_before_shuffles",
            ),
            further_float16=("split_grouped_convolutions",),
            further_int8=("convolve_before_shuffles",),
        ),
        # Stores templates and coefficients; the runtime mixes the kernels when it opens the file.
        Profile(
            name="ort-cpu-banked",
            format="onnx",
            rewrites_float=("fold_output_shift",),
            further_float16=("split_grouped_convolutions",),
        ),
        Profile(
            name="coreml-ane",
            format="coreml",
            rewrites_float=FLOAT_FORM,
        ),
        Profile(
            name="coreai",
            format="coreai",
            rewrites_float=FLOAT_FORM,
        ),
        Profile(
            name="ethos-u",
            format="tflite",
            rewrites_float=(
                *FLOAT_FORM,
                "convolve_before_shuffles",
                "convolve_for_shuffles",
                "split_shuffled_convolutions",
                "use_transposed_convolutions",
                "join_rows_of_shuffles",
                "pad_before_convolutions",
            ),
            further_int8=(
                "convolve_before_shuffles",
                "convolve_for_shuffles",
                "split_shuffled_convolutions",
                "use_transposed_convolutions",
                "join_rows_of_shuffles",
                "pad_before_convolutions",
            ),
        ),
    )
}

DEFAULT_PROFILES: Mapping[Format, str] = {
    profile.format: profile.name for profile in reversed(list(PROFILES.values()))
}
"""The first profile of each format."""


def profile_named(name: str) -> Profile:
    """Return the profile ``name``.

    Raises:
        UserError: If no profile has this name.
    """
    if name not in PROFILES:
        raise UserError(f"{name}: no such target profile; choose one of {', '.join(PROFILES)}")
    return PROFILES[name]
