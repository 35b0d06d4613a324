"""Reading one text file with a bound on its size. Raises InventoryError."""

from __future__ import annotations

from pathlib import Path

from controller.model.errors import InventoryError

FILE_BYTES_MAX = 3 * 1024 * 1024


def read_text(path: Path) -> str:
    """The file's text. Comment lines may be of any encoding, as in Ansible; everything else is UTF-8."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InventoryError(f"cannot be read: {error.strerror}", file=str(path)) from None
    return decode(data, str(path))


def decode(data: bytes, file: str) -> str:
    if len(data) > FILE_BYTES_MAX:
        raise InventoryError(f"larger than {FILE_BYTES_MAX // 1024 // 1024} MiB", file=file)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    lines = []
    for number, line in enumerate(data.splitlines(), 1):
        comment = line[:1] in (b"#", b";")
        try:
            lines.append("" if comment else line.decode("utf-8"))
        except UnicodeDecodeError:
            raise InventoryError("this line is not UTF-8", file=file, line=number) from None
    return "\n".join(lines)
