"""Preparing TensorFlow Datasets: by the real one as far as it goes without TensorFlow, and without any network."""

from __future__ import annotations

import errno
import hashlib
import socket
import sys
import time
import urllib.error
import urllib.request

import pytest
from tiny_tfds import TINY, builder_class, check_tiny, contents, library, read, refused

from aevae_jax.data import tfds, tfds_prepare
from aevae_jax.types import InputError

HOST = "http://data.example"
URL = f"{HOST}/files/images.gz"
CONTENT = b"the file of the authors"


@pytest.fixture(autouse=True)
def as_if_installed(monkeypatch):
    """For pictures that are encoded already TFDS needs no TensorFlow, and for builders that are made here no files."""
    monkeypatch.setattr(tfds_prepare, "PREPARE_NEEDS", ("tensorflow_datasets",))


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """What was asked of the network, which is not there."""

    def refuse(url, timeout):
        urls.append(url)
        assert timeout == tfds_prepare.NETWORK_SECONDS == 5
        raise urllib.error.URLError(socket.gaierror(-2, "Name or service not known"))

    urls = []
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return urls


@pytest.fixture
def knows(monkeypatch):
    """Makes TFDS know one builder class and no other."""

    def known(builder):
        monkeypatch.setattr(library, "list_builders", lambda **_: [builder.name])
        monkeypatch.setattr(library, "builder_cls", {builder.name: builder}.__getitem__)

    return known


@pytest.fixture
def manual(tmp_path):
    """A folder with the one file that `downloading` needs."""
    folder = tmp_path / "manual"
    folder.mkdir()
    (folder / "images.gz").write_bytes(CONTENT)
    return folder


def url_info(filename, content=CONTENT):
    digest = hashlib.sha256(content).hexdigest()
    return library.download.checksums.UrlInfo(size=len(content), checksum=digest, filename=filename)


def downloading(failure=None, **attributes):
    """A builder whose pictures come from one registered file; `failure` is raised after the third picture."""

    class Downloading(
        builder_class(TINY, **{"url_infos": {URL: url_info("images.gz")}, **attributes}), skip_registration=True
    ):
        name = "tiny"

        def _split_generators(self, dl_manager):
            assert dl_manager.download(URL).read_bytes() == CONTENT
            return super()._split_generators(dl_manager)

        def _generate_examples(self, pictures):
            for index, example in super()._generate_examples(pictures):
                if failure is not None and index == 3:
                    raise failure
                yield index, example

    return Downloading


# what works


def test_what_is_prepared_can_be_read_without_tensorflow(tmp_path, monkeypatch, knows, asked, manual):
    knows(downloading())
    root = str(tmp_path / "data")
    folder = tfds_prepare.prepare("tiny", root, str(manual))
    assert folder == tmp_path / "data" / "tiny" / "1.0.0"
    assert tfds.is_prepared("tiny", root)
    check_tiny(read(folder))
    assert asked == []  # as all files are there
    monkeypatch.setattr(tfds, "library", lambda: pytest.fail("nothing is needed to say that it is there"))
    assert tfds_prepare.prepare("tiny", root) == folder


def test_files_in_the_folder_of_tfds_are_found_without_an_option(tmp_path, knows, asked, manual):
    knows(downloading())
    (tmp_path / "data" / "downloads").mkdir(parents=True)
    manual.rename(tmp_path / "data" / "downloads" / "manual")
    check_tiny(read(tfds_prepare.prepare("tiny", str(tmp_path / "data"))))
    assert asked == []


def test_a_default_configuration_is_prepared_and_found(tmp_path, knows):
    configs = [library.core.BuilderConfig(name=name, version="2.0.0") for name in ("grey", "other")]
    knows(builder_class(TINY, BUILDER_CONFIGS=configs))
    folder = tmp_path / "tiny" / "grey" / "2.0.0"
    assert tfds_prepare.prepare("tiny", str(tmp_path)) == folder
    for name in ("tiny", "tiny/grey", "tiny/grey:2.0.0"):
        check_tiny(tfds.read(name, str(tmp_path)).parts)
        assert tfds_prepare.prepare(name, str(tmp_path)) == folder
    assert not tfds.is_prepared("tiny/other", str(tmp_path))
    refused(
        "data set 'tiny/none' .*BuilderConfig none not found .*, expected a data set that TFDS can prepare here",
        tfds_prepare.prepare,
        "tiny/none",
        str(tmp_path),
    )


# what cannot be prepared


def test_without_tensorflow_it_is_one_line(tmp_path, monkeypatch, asked):
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    message = refused("packages: got no tensorflow.*, expected", tfds_prepare.prepare, "mnist", str(tmp_path / "data"))
    assert message.endswith('pip install -e ".[prepare]"')
    assert not (tmp_path / "data").exists()
    assert asked == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "fashion_mnst",
            "got 'fashion_mnst', expected a name that TensorFlow Datasets knows; did you mean fashion_mnist?",
        ),
        ("qqqqqqqq", "got 'qqqqqqqq', expected a name that TensorFlow Datasets knows"),
        ("mnist:9.9.9", "Dataset mnist cannot be loaded at version 9.9.9, only: 3.0.1"),
        ("lm1b", "got features text, expected images, in a feature called image"),
    ],
)
def test_what_tfds_cannot_prepare_is_one_line_and_no_wait(tmp_path, asked, name, message):
    began = time.monotonic()
    assert message in refused("data set", tfds_prepare.prepare, name, str(tmp_path / "data"))
    assert time.monotonic() - began < 5
    assert not (tmp_path / "data").exists()
    assert asked == []


def test_without_a_network_the_files_to_fetch_are_named(tmp_path, knows, asked, manual):
    names = ["images.gz", "labels.gz", *(f"more{i}.gz" for i in range(4))]
    files = {f"{HOST}/files/{name}": url_info(name) for name in names} | {f"{HOST}/?id=7": url_info("named.gz")}
    knows(downloading(url_infos=files))
    data = str(tmp_path / "data")
    message = refused("network", tfds_prepare.prepare, "tiny", data, str(manual))
    assert message == (
        "network: got no answer from data.example ([Errno -2] Name or service not known), expected a server that "
        f"answers; or fetch {HOST}/files/labels.gz, {HOST}/files/more0.gz, {HOST}/files/more1.gz, {HOST}/files/more2.gz"
        " and 2 more elsewhere into a folder DIR and type: "
        f"aevae data prepare tiny --directory {data} --manual-dir DIR"
    )
    assert asked == [f"{HOST}/"]
    assert not (tmp_path / "data").exists()


def test_servers_of_files_are_asked_by_either_protocol(tmp_path, knows, asked):
    files = {"ftp://data.example/files/images.gz": url_info("images.gz")}
    knows(downloading(url_infos=files, download_and_prepare=lambda *_, **__: pytest.fail("no server was asked")))
    message = refused("network", tfds_prepare.prepare, "tiny", str(tmp_path / "data"), str(tmp_path))
    assert message.startswith("network: got no answer from data.example ")
    assert asked == ["ftp://data.example/"]


def test_up_to_four_files_to_fetch_are_all_named(tmp_path, knows, asked):
    data = str(tmp_path / "data")
    for count, more in ((4, " elsewhere"), (5, f", {URL}3 and 1 more elsewhere")):
        knows(downloading(url_infos={f"{URL}{i}": url_info(f"images.gz{i}") for i in range(count)}))
        message = refused("network", tfds_prepare.prepare, "tiny", data, str(tmp_path))
        assert (
            f"{URL}3{more.removeprefix(f', {URL}3')} into a folder DIR and type: "
            f"aevae data prepare tiny --directory {data} --manual-dir DIR"
        ) in message
    assert asked == [f"{HOST}/"] * 2


def test_files_are_named_as_tfds_looks_for_them(tmp_path, knows):
    knows(downloading(url_infos={f"{HOST}/?id=7": url_info("named.gz")}))
    assert f"or fetch {HOST}/?id=7 as named.gz elsewhere" in refused(
        "network", tfds_prepare.prepare, "tiny", str(tmp_path)
    )


def test_a_server_that_does_not_answer_is_waited_for_a_few_seconds(tmp_path, monkeypatch, knows):
    monkeypatch.undo()
    monkeypatch.setattr(tfds_prepare, "PREPARE_NEEDS", ())
    monkeypatch.setattr(tfds_prepare, "NETWORK_SECONDS", 0.2)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
        knows(downloading(url_infos={f"http://{host}/images.gz": url_info("images.gz")}))
        began = time.monotonic()
        refused(f"network: got no answer from {host} .*timed out", tfds_prepare.prepare, "tiny", str(tmp_path))
        assert time.monotonic() - began < 5


@pytest.fixture
def begun(monkeypatch):
    """The builders that were told to fetch and prepare, which they do not."""
    builders = []
    monkeypatch.setattr(
        library.core.DatasetBuilder, "download_and_prepare", lambda self, **options: builders.append(self.name)
    )
    return builders


def test_a_server_that_refuses_has_answered(tmp_path, monkeypatch, knows, begun):
    def forbidden(url, timeout):
        raise urllib.error.HTTPError(url, 403, "Forbidden", {}, None)

    monkeypatch.setattr(urllib.request, "urlopen", forbidden)
    knows(downloading())
    tfds_prepare.prepare("tiny", str(tmp_path / "data"), str(tmp_path))
    assert begun == ["tiny"]


def test_files_that_can_only_be_fetched_by_hand_are_asked_for(tmp_path, knows, asked):
    knows(downloading(MANUAL_DOWNLOAD_INSTRUCTIONS="  images.gz, by\n  signing a form.\n"))
    message = refused("files of tiny: got none", tfds_prepare.prepare, "tiny", str(tmp_path))
    assert ", expected some fetched by hand: images.gz, by signing a form.; type: aevae data prepare tiny" in message
    assert asked == []


def test_files_that_were_fetched_by_hand_are_not_asked_for(tmp_path, knows, asked, begun, manual):
    knows(downloading(MANUAL_DOWNLOAD_INSTRUCTIONS="sign a form", url_infos={f"{HOST}/more": url_info("more")}))
    tfds_prepare.prepare("tiny", str(tmp_path / "data"), str(manual))
    assert asked == []
    assert begun == ["tiny"]


def test_a_folder_of_files_that_does_not_exist_is_one_line(tmp_path):
    message = r"folder \(--manual-dir\): got nowhere, expected one that exists"
    refused(message, tfds_prepare.prepare, "mnist", str(tmp_path), "nowhere")


def test_another_file_of_that_name_is_one_line(tmp_path, knows, manual):
    knows(downloading())
    (manual / "images.gz").write_bytes(b"another file of that name")
    message = "data set 'tiny' .*NonMatchingChecksumError.*images.gz"
    refused(message, tfds_prepare.prepare, "tiny", str(tmp_path / "data"), str(manual))


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), RuntimeError("a\nline"), OSError(errno.ENOSPC, "disk full")])
def test_what_fails_or_is_interrupted_leaves_nothing_behind(tmp_path, knows, manual, failure):
    root = tmp_path / "data"
    knows(downloading(failure))
    with pytest.raises((InputError, KeyboardInterrupt)) as caught:
        tfds_prepare.prepare("tiny", str(root), str(manual))
    if isinstance(caught.value, InputError):
        assert str(caught.value).startswith(f"data set 'tiny' ({root}): got {type(failure).__name__}: ")
        assert "\n" not in str(caught.value)
    assert not tfds.is_prepared("tiny", str(root))
    assert [path for path in contents(root) if not path.startswith("downloads")] == ["tiny"]
    knows(downloading())
    check_tiny(read(tfds_prepare.prepare("tiny", str(root), str(manual))))
