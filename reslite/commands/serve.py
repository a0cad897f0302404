"""``reslite serve``: a page that restores pictures in the browser with a bundle's files."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from pathlib import Path

import click

_PATH = click.Path(path_type=Path)


@click.command("serve", epilog="Example: reslite serve dist/ --open")
@click.argument("bundle", type=_PATH, default="dist")
@click.option("--open", "opens", is_flag=True, help="Open the page in this machine's browser.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="Port to listen on; 0 for any.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on.",
)
@click.option("--store", type=_PATH, help="Keep what pages measure in this file [default: yours].")
def command(bundle: Path, opens: bool, port: int, host: str, store: Path | None) -> None:
    """Serve a page that restores pictures in the browser, with the files of BUNDLE.

    The pictures stay in the browser, and nothing is loaded from outside this machine. The runtimes
    LiteRT.js and onnxruntime-web are installed from npm once.
    """
    from benchmarks.store import default_store
    from reslite.serving.bundle import open_bundle, site_of
    from reslite.serving.links import Links
    from reslite.serving.results import keeping
    from reslite.serving.runtimes import install_runtimes
    from reslite.serving.server import application, bound_socket, server_of

    def tell(line: str) -> None:
        click.echo(line, err=True)

    manifest = open_bundle(bundle)
    install_runtimes(tell)
    site = site_of(bundle, manifest)
    with bound_socket(host, port) as listening:
        address = f"http://{_in_address(host)}:{listening.getsockname()[1]}/"
        tell("the page, for one browser; Ctrl-C ends it:")
        with suppress(KeyboardInterrupt):
            links = Links(lambda token: click.echo(f"{address}?token={token}"))
            if opens:
                click.launch(f"{address}?token={links.token}")
            keep = keeping(manifest, store or default_store(), tell)
            server_of(application(site, links, keep)).run(sockets=[listening])


def _in_address(host: str) -> str:
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host
