"""Keys by which a scheduler, its workers and we know each other."""

from __future__ import annotations

import os
from pathlib import Path

from monai_cae.errors import MonaiCaeError
from monai_cae.files import new_folder


def make_keys(folder: Path) -> None:
    """Write a new key and its own certificate, for scheduler, workers and client alike: whoever has the key is trusted
    with everything, nobody else is heard.

    Args:
        folder: absent or empty; its owner alone may read key.pem.

    Raises:
        MonaiCaeError: the folder has something in it, or Dask is not installed.
    """
    try:
        from distributed.security import Security
    except ImportError as error:
        raise MonaiCaeError("keys are made by Dask: pip install 'monai-cae[cluster]'") from error
    made = Security.temporary()
    with new_folder(folder) as temporary:
        for name, text in (("cert", made.tls_ca_file), ("key", made.tls_client_key)):
            handle = os.open(temporary / f"{name}.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(text)
