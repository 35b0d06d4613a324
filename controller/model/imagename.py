"""Names of images in one form, so that what a manifest says and what a host holds can be compared. Pure."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=65536)
def canonical(image: str) -> str:
    """`nginx` → `docker.io/library/nginx:latest`: registry and tag that a short name leaves open."""
    first, slash, _ = image.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        image = f"docker.io/{image}" if slash else f"docker.io/library/{image}"
    return image if "@" in image or image.rfind(":") > image.rfind("/") else f"{image}:latest"


def registry_of(image: str) -> str:
    """The registry of a canonical name."""
    return image.partition("/")[0]
