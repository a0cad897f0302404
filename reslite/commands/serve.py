"""``reslite serve``: a page that restores pictures in the browser with a bundle's files."""

from __future__ import annotations

from contextlib import ExitStack, suppress
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
    "--phone", is_flag=True, help="For a phone in this network: HTTPS, and the link as a QR code."
)
@click.option(
    "--host",
    help="Address to listen on; HTTPS unless it is this machine's own [default: 127.0.0.1].",
)
@click.option("--adb", metavar="SERIAL", help="For a phone on USB, by adb.")
@click.option("--store", type=_PATH, help="Keep what pages measure in this file [default: yours].")
@click.option(
    "--export", "exported", type=_PATH, help="Write the page into this folder and serve nothing."
)
@click.option("--overwrite", is_flag=True, help="Replace a page that --export wrote.")
def command(
    bundle: Path,
    opens: bool,
    port: int,
    phone: bool,
    host: str | None,
    adb: str | None,
    store: Path | None,
    exported: Path | None,
    overwrite: bool,
) -> None:
    """Serve a page that restores pictures in the browser, with the files of BUNDLE, and times them.

    The pictures stay in the browser, and nothing is loaded from outside this machine. The runtimes
    LiteRT.js and onnxruntime-web are installed from npm once.
    """
    from benchmarks.store import default_store
    from reslite.serving.bundle import open_bundle, site_of
    from reslite.serving.exporting import export_site
    from reslite.serving.links import Links
    from reslite.serving.reaching import qr_code, reach_of, reversed_port
    from reslite.serving.results import keeping
    from reslite.serving.runtimes import install_runtimes
    from reslite.serving.server import application, bound_socket, server_of

    if adb is not None and (phone or host):
        raise click.UsageError("--adb needs no address: leave --phone and --host out")

    def tell(line: str) -> None:
        click.echo(line, err=True)

    manifest = open_bundle(bundle)
    install_runtimes(tell)
    if exported is not None:
        size = export_site(site_of(bundle, manifest, exported=True), exported, overwrite)
        click.echo(f"{exported} ({size / 1e6:.0f} MB)")
        return
    site, reach = site_of(bundle, manifest), reach_of(host, phone)
    with ExitStack() as stack:
        listening = stack.enter_context(bound_socket(reach.host, port))
        port = listening.getsockname()[1]
        if adb is not None:
            stack.enter_context(reversed_port(adb, port))
        address = f"{reach.scheme}://{'localhost' if adb else reach.shown}:{port}/"

        def tell_link(token: str) -> None:
            link = f"{address}?token={token}"
            click.echo(f"{qr_code(link)}{link}" if phone or adb else link)

        if reach.certificate is not None:
            tell(
                "the browser warns of a certificate that it does not know, made for this call "
                f"alone; its SHA-256 is {reach.certificate.fingerprint}"
            )
        tell("the page, for one browser; Ctrl-C ends it:")
        stack.enter_context(suppress(KeyboardInterrupt))
        links = Links(tell_link)
        if opens:
            click.launch(f"{address}?token={links.token}")
        keep = keeping(manifest, store or default_store(), tell)
        https = None if reach.certificate is None else reach.certificate.context
        server_of(application(site, links, keep), https).run(sockets=[listening])
