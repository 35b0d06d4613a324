"""The test image's archive is the same every time and has the shape that `podman load` takes."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from controller.model.errors import UsageError
from lab import image


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSHOAL_LAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def busybox(tmp_path: Path) -> Path:
    (tmp_path / "busybox").write_bytes(b"a static program")
    return tmp_path / "busybox"


def parts(archive: Path) -> tuple[dict[str, object], dict[str, object], bytes]:
    with tarfile.open(archive) as tar:

        def content(name: str) -> bytes:
            file = tar.extractfile(name)
            assert file is not None
            return file.read()

        manifest = json.loads(content("manifest.json"))[0]
        return manifest, json.loads(content(manifest["Config"])), content(manifest["Layers"][0])


def test_the_same_input_gives_the_same_bytes(busybox: Path) -> None:
    first = image.build(busybox=busybox).read_bytes()

    assert image.build(busybox=busybox).read_bytes() == first


def test_names_and_digests_agree(busybox: Path) -> None:
    manifest, config, layer = parts(image.build("localhost/sshoal-test:v2", busybox=busybox))

    assert manifest["RepoTags"] == ["localhost/sshoal-test:v2"]
    assert config["rootfs"] == {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}
    assert manifest["Config"] == f"{hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()}.json"


@pytest.mark.parametrize(("variant", "environment"), [("good", []), ("bad", ["READY=no"])])
def test_the_version_is_the_tags_and_the_bad_variant_never_gets_ready(
    busybox: Path, variant: str, environment: list[str]
) -> None:
    _, config, _ = parts(image.build("localhost/sshoal-test:v7", variant, busybox=busybox))

    assert config["config"]["Env"] == ["PATH=/bin", "VERSION=v7", *environment]  # type: ignore[index]


def test_the_layer_holds_busybox_and_links_to_it(busybox: Path) -> None:
    _, _, layer = parts(image.build(busybox=busybox))
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        assert tar.getmember("bin/busybox").mode == 0o755
        assert tar.getmember("bin/sh").linkname == "busybox"
        assert tar.getmember("server.sh").mode == 0o755


@pytest.mark.parametrize(("tag", "variant"), [("no-version", "good"), ("a:b c", "good"), ("a:b", "ugly")])
def test_what_cannot_be_an_image_is_refused(busybox: Path, tag: str, variant: str) -> None:
    with pytest.raises(UsageError):
        image.build(tag, variant, busybox=busybox)
