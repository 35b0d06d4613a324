"""Archives of images as they are read on this machine: whatever their form, each layer ends up plain, verified and at a known place."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.act.imagefile import SourceImage, SourceLayer, choose, opened, read_archive
from controller.model.errors import UsageError
from lab import layered
from nodeagent.imagefile import digest_of

LAYERS = [layered.layer("a", 3000, 1), layered.layer("b", 2000, 2)]
TAG = "localhost/web:v1"
ID = digest_of(layered.configuration(LAYERS))


def read(tmp_path: Path, content: bytes) -> tuple[SourceImage, ...]:
    path = tmp_path / "image.tar"
    path.write_bytes(content)
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return read_archive(path, "image.tar", scratch)


def content_of(layer: SourceLayer) -> bytes:
    return layer.path.read_bytes()[layer.offset : layer.offset + layer.size_bytes]


PLAIN = layered.tar(layered.docker_files(TAG, LAYERS))
FORMS = {
    "docker-archive": PLAIN,
    "docker-archive, gzip": gzip.compress(PLAIN),
    "docker-archive, bzip2": bz2.compress(PLAIN),
    "docker-archive, xz": lzma.compress(PLAIN),
    "oci-archive": layered.tar(layered.oci_files(TAG, LAYERS)),
    "oci-archive, its layers gzip": layered.tar(layered.oci_files(TAG, LAYERS, packed=True)),
    "oci-archive, all gzip": gzip.compress(layered.tar(layered.oci_files(TAG, LAYERS, packed=True))),
}


@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS)
def test_the_same_image_is_read_from_every_form_of_archive(tmp_path: Path, content: bytes) -> None:
    (image,) = read(tmp_path, content)
    assert (image.id, image.names) == (ID, (TAG,))
    assert [content_of(layer) for layer in image.layers] == LAYERS
    assert [layer.digest for layer in image.layers] == [digest_of(one) for one in LAYERS]
    assert digest_of(image.config.encode()) == ID
    assert image.size_bytes == sum(map(len, LAYERS))


def test_plain_archives_are_not_copied(tmp_path: Path) -> None:
    (image,) = read(tmp_path, PLAIN)
    assert {layer.path for layer in image.layers} == {tmp_path / "image.tar"}
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_layer_that_old_archives_name_by_a_link_is_found(tmp_path: Path) -> None:
    import io
    import tarfile

    files = layered.docker_files(TAG, LAYERS)
    (entry,) = json.loads(files["manifest.json"])
    target, entry["Layers"][1] = entry["Layers"][1], "legacy/layer.tar"
    files["manifest.json"] = json.dumps([entry]).encode()
    buffer = io.BytesIO(layered.tar(files))
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        link = tarfile.TarInfo("legacy/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, f"../{target}"
        tar.addfile(link)
    (image,) = read(tmp_path, buffer.getvalue())
    assert [content_of(layer) for layer in image.layers] == LAYERS


def test_short_names_are_told_in_full_as_hosts_know_them(tmp_path: Path) -> None:
    (image,) = read(tmp_path, layered.tar(layered.docker_files("nginx", LAYERS)))
    assert image.names == ("docker.io/library/nginx:latest",)


def test_several_images_of_one_archive_share_their_layers(tmp_path: Path) -> None:
    first, second = layered.docker_files(TAG, LAYERS), layered.docker_files("localhost/db:v1", LAYERS[:1])
    manifest = json.loads(first["manifest.json"]) + json.loads(second["manifest.json"])
    images = read(tmp_path, layered.tar({**second, **first, "manifest.json": json.dumps(manifest).encode()}))
    assert [image.names for image in images] == [(TAG,), ("localhost/db:v1",)]
    assert images[0].layers[0] is images[1].layers[0]


def test_of_an_image_for_several_architectures_a_host_gets_its_own(tmp_path: Path) -> None:
    variants = {arch: layered.oci_files(TAG, [LAYERS[0]], architecture=arch) for arch in ("amd64", "arm64")}
    entries = [json.loads(files["index.json"])["manifests"][0] for files in variants.values()]
    inner = json.dumps({"manifests": [{"digest": entry["digest"]} for entry in entries]}).encode()
    outer = {
        "manifests": [{"digest": layered.digest(inner), "annotations": {"org.opencontainers.image.ref.name": TAG}}]
    }
    files = {**variants["amd64"], **variants["arm64"], f"blobs/sha256/{layered.digest(inner)[7:]}": inner}
    images = read(tmp_path, layered.tar({**files, "index.json": json.dumps(outer).encode()}))
    assert [image.architecture for image in choose(images, "arm64")] == ["arm64"]
    assert choose(images, "riscv64") == []


def test_the_only_image_of_a_name_is_for_every_host(tmp_path: Path) -> None:
    images = read(tmp_path, PLAIN)
    assert choose(images, "riscv64") == list(images)


# ---- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"\x1f\x8b broken", PLAIN[:6000], gzip.compress(PLAIN)[:-50], lzma.compress(PLAIN)[:-50]],
    ids=["empty", "text", "broken gzip", "cut tar", "cut gzip", "cut xz"],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UsageError, match=r"not an archive of images|cannot be read"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    "manifest",
    [b"{", b"[]x", b'[{"RepoTags": 3}]', b'{"a": 1}', b"[3]", b'[{"Config": "none", "Layers": []}]'],
    ids=lambda text: text.decode(),
)
def test_a_broken_manifest_is_refused(tmp_path: Path, manifest: bytes) -> None:
    with pytest.raises(UsageError, match="manifest is broken"):
        read(tmp_path, layered.tar({"manifest.json": manifest}))


def test_a_file_system_export_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no manifest\.json"):
        read(tmp_path, layered.tar({"etc/passwd": b""}))


def test_an_archive_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without an image"):
        read(tmp_path, layered.tar({"manifest.json": b"[]"}))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_layer_that_was_changed_is_refused_before_anything_is_sent(tmp_path: Path, packed: bool) -> None:
    files = layered.oci_files(TAG, LAYERS, packed=packed)
    other = layered.oci_files(TAG, [LAYERS[0], layered.layer("b", 2000, 3)], packed=packed)
    (name,) = files.keys() - other.keys() - {"index.json"} - _documents(files)
    (content,) = (other[one] for one in other.keys() - files.keys() - _documents(other))
    with pytest.raises(UsageError, match="torn, or changed"):
        read(tmp_path, layered.tar({**files, name: content}))


def _documents(files: dict[str, bytes]) -> set[str]:
    return {name for name, content in files.items() if content.startswith(b"{")}


def test_a_layer_compressed_with_zstd_is_refused_with_the_reason(tmp_path: Path) -> None:
    files = layered.docker_files(TAG, LAYERS)
    (entry,) = json.loads(files["manifest.json"])
    files[entry["Layers"][0]] = b"\x28\xb5\x2f\xfd rest"
    with pytest.raises(UsageError, match="zstd"):
        read(tmp_path, layered.tar(files))


def test_a_name_that_is_neither_file_nor_image_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no Podman on this machine"), opened("localhost/none:1"):
        pass
    with pytest.raises(UsageError, match="there is no archive"), opened("none.tar.gz"):
        pass


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.integers(0, len(PLAIN) - 1))
def test_whatever_an_archive_holds_the_answer_is_images_or_a_usage_error(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int
) -> None:
    changed = PLAIN[:at] + noise + PLAIN[at + len(noise) :]
    try:
        images = read(tmp_path_factory.mktemp("archive"), changed)
    except UsageError:
        return
    for image in images:
        assert all(digest_of(content_of(layer)) == layer.digest for layer in image.layers)
