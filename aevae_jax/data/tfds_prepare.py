"""TensorFlow Datasets prepared so that `tfds.read` can read them: the only part that needs TensorFlow and a network."""

from __future__ import annotations

import difflib
import importlib.util
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from aevae_jax.data import tfds, tfds_files
from aevae_jax.types import InputError, not_installed

PREPARE_NEEDS = ("tensorflow_datasets", "tensorflow", "importlib_resources")
"""What the extra `prepare` brings. TFDS 4.9 needs the last one to find its own data sets, and does not say so."""

NETWORK_SECONDS = 5
"""How long a server may take to answer before there is said to be no network."""


def prepare(name: str, directory: str = "", manual_dir: str = "") -> Path:
    """Fetch an image data set and write it so that `read` can read it; needs TensorFlow. Shows its progress.

    Args:
      name: as for `read`; a version can only be the one that TFDS prepares.
      directory: where prepared data sets live; empty for `$TFDS_DATA_DIR`, then `~/tensorflow_datasets`.
      manual_dir: files that are there under the names that TFDS knows are taken instead of fetched, if their sha256 is
        the one that TFDS knows; empty for `downloads/manual` in `directory`.

    Returns:
      The folder of the data set; at once if it is prepared already.

    Raises:
      InputError: a data set that TFDS does not know or that has no images, no TensorFlow, no network, files missing
        from `manual_dir`, or whatever else keeps TFDS from preparing it. Nothing is left that `read` would take.
    """
    root = tfds.root_of(directory)
    if str(root).startswith("~"):
        raise InputError("directory", got=root, expected="a home folder that exists", hint="give --directory")
    if folder := tfds.find(name, root):
        with tfds.one_line(name, folder):
            tfds_files.check_files(name, folder)
            tfds_files.check_features(name, folder, tfds.command(name, "ANOTHER_DIRECTORY"))
        return folder
    if missing := [package for package in PREPARE_NEEDS if importlib.util.find_spec(package) is None]:
        raise not_installed("packages", "prepare", purpose="to prepare data sets", got=f"no {', no '.join(missing)}")
    if manual_dir and not os.path.isdir(tfds.expanded(manual_dir)):
        raise InputError("folder", where="--manual-dir", got=manual_dir, expected="one that exists")
    manual = tfds.expanded(manual_dir) if manual_dir else root / "downloads" / "manual"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no word on how TensorFlow was compiled
    with tfds.one_line(name, root, "a data set that TFDS can prepare here"):
        builder = _builder(name, root)
        tfds.image_shape(builder.info, name)
        _check_downloads(builder, manual, tfds.command(name, directory))
        options = tfds.library().download.DownloadConfig(manual_dir=manual, try_download_gcs=False)
        builder.download_and_prepare(download_config=options)
    return Path(builder.data_path)


def _builder(name: str, root: Path) -> Any:
    library = tfds.library()
    base, config, version = tfds.parse(name)
    known = library.list_builders(with_community_datasets=False)  # their list lies on the network
    if base not in known:
        near = difflib.get_close_matches(base, known)
        raise InputError(
            "data set",
            got=repr(base),
            expected="a name that TensorFlow Datasets knows",
            hint=f"did you mean {' or '.join(near)}?" if near else "",
        )
    options = {"config": config or None, "version": version or None, "file_format": "array_record"}
    return library.builder_cls(base)(data_dir=root, **options)


def _check_downloads(builder: Any, manual: Path, command: str) -> None:
    """Refuse at once what TFDS would try for minutes: to fetch files without a network.

    Raises:
      InputError: some registered file is not in `manual`, and its server does not answer; or the authors' files can
        only be fetched by hand, and are not in `manual`.
    """
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        if not manual.is_dir():
            words = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
            raise InputError(
                f"files of {builder.name}",
                got="none",
                expected=f"some fetched by hand: {words}",
                hint=f"type: {command} --manual-dir DIR",
            )
        return
    known = {url: info.filename for url, info in (builder.url_infos or {}).items()}
    missing = {url: file for url, file in known.items() if not file or not (manual / file).is_file()}
    servers = [urllib.parse.urlsplit(url) for url in missing if url.startswith(("http", "ftp"))]
    try:
        for server in servers[:1]:
            urllib.request.urlopen(f"{server.scheme}://{server.netloc}/", timeout=NETWORK_SECONDS).close()
    except urllib.error.HTTPError:
        pass  # it has answered, whatever it said
    except OSError as error:
        reason = getattr(error, "reason", error)
        files = [url if not file or url.endswith(f"/{file}") else f"{url} as {file}" for url, file in missing.items()]
        more = f" and {len(files) - 4} more" if len(files) > 4 else ""
        raise InputError(
            "network",
            got=f"no answer from {server.netloc} ({reason})",
            expected="a server that answers",
            hint=f"or fetch {', '.join(files[:4])}{more} elsewhere into a folder DIR and type: {command} "
            "--manual-dir DIR",
        ) from None
