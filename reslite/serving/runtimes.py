"""The runtimes that the page computes with: npm packages in the versions of the committed lock."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.devices.browser import (
    COMMAND,
    install_packages,
    installed_version,
    packages_folder,
    pinned,
)
from reslite.serving.site import Item, Site
from runtime.errors import UserError
from runtime.formats import Format

_IMPORT = b'from "@litertjs/wasm-utils"'


@dataclass(frozen=True)
class WebRuntime:
    """A runtime in the browser.

    Attributes:
        name: Name of the page's module for it, without suffix.
        title: Name for people.
        package: Its package on npm.
        format: The format that it opens.
        files: What the page loads: path below the runtime's folder, and below ``node_modules``.
        fixed_size: Whether it takes files of fixed size only.
    """

    name: str
    title: str
    package: str
    format: Format
    files: dict[str, str]
    fixed_size: bool = False

    def installed(self) -> bool:
        """Tell whether the package is here in the version of the lock."""
        return installed_version(self.package) == pinned()[self.package]

    @property
    def folder(self) -> str:
        """The runtime's folder in the site, which names its version so that it can be cached."""
        return f"runtimes/{self.name}-{pinned()[self.package]}"

    def items(self) -> Site:
        """Return its files in the site.

        Raises:
            UserError: If the package has another form than the page expects.
        """
        items = {}
        # The package's own description says whose it is, and its licence.
        described = {"package.json": f"{self.package}/package.json"}
        for name, path in (self.files | described).items():
            whole = packages_folder() / path
            items[f"{self.folder}/{name}"] = Item(_relative if name == "index.js" else whole, name)
        return items


def _wasm_of_litert() -> dict[str, str]:
    names = [
        f"litert_wasm_{kind}internal.{suffix}"
        for kind in ("", "threaded_", "compat_")
        for suffix in ("js", "wasm")
    ]
    return {f"wasm/{name}": f"@litertjs/core/wasm/{name}" for name in names}


_LITERT_INDEX = "@litertjs/core/dist/index.js"
_ORT = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_ORT_WEBGPU = tuple(
    one.replace("ort.wasm", "ort.webgpu").replace("-threaded", "-threaded.asyncify") for one in _ORT
)

RUNTIMES: Sequence[WebRuntime] = (
    WebRuntime(
        "litert",
        "LiteRT.js",
        "@litertjs/core",
        "tflite",
        {
            "index.js": _LITERT_INDEX,
            "wasm-utils.js": "@litertjs/wasm-utils/dist/index.js",
            **_wasm_of_litert(),
        },
        fixed_size=True,
    ),
    WebRuntime(
        "onnxruntime",
        "ONNX Runtime Web",
        "onnxruntime-web",
        "onnx",
        {name: f"onnxruntime-web/dist/{name}" for name in (*_ORT, *_ORT_WEBGPU)},
    ),
)


def install_runtimes(announce: Callable[[str], None]) -> None:
    """Install the runtimes' packages with npm, unless they are in the cache folder already.

    Raises:
        UserError: If npm is missing or fails.
    """
    if all(one.installed() for one in RUNTIMES):
        return
    names = " and ".join(f"{one.package} {pinned()[one.package]}" for one in RUNTIMES)
    if shutil.which("npm") is None:
        raise UserError(
            f"the page computes with {names} from npm, which is not installed: apt-get install npm "
            f"(Debian), then try again, or copy the cache folder of a machine where '{COMMAND}' ran"
        )
    announce(f"installing {names} from npm, once")
    install_packages()


def _relative() -> bytes:
    """Return LiteRT's module with its import as a path: workers know no import maps.

    Raises:
        UserError: If the module does not import what it did in the locked version.
    """
    path = packages_folder() / _LITERT_INDEX
    text = path.read_bytes()
    if text.count(_IMPORT) != 1:
        raise UserError(f"{path}: not the module of the locked version; remove it and try again")
    return text.replace(_IMPORT, b'from "./wasm-utils.js"')
