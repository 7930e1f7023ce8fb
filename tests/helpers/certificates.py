"""Certificates for tests, made by the openssl command: it is there where trustme cannot be."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

PASSWORD = "open sesame"


def openssl(*args: str) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True)


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str = "An authority") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("there is no openssl command to make a certificate with")
        self.folder = folder
        self.cert, self.key = folder / "ca.pem", folder / "ca-key.pem"
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        self._new = ["req", "-new", *curve, "-nodes", "-days", "2", "-x509"]
        folder.mkdir(exist_ok=True)
        ca = ["-addext", "basicConstraints=critical,CA:TRUE", "-subj", f"/CN={name}"]
        openssl(*self._new, *ca, "-keyout", str(self.key), "-out", str(self.cert))

    def issue(
        self, name: str, subject: str = "/CN=localhost", alternative: str = "IP:127.0.0.1"
    ) -> tuple[Path, Path]:
        """A certificate with its authority's behind it, and its key."""
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"
        openssl(
            *self._new,
            *("-subj", subject, "-utf8", "-addext", f"subjectAltName={alternative}"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-CA", str(self.cert), "-CAkey", str(self.key)),
            *("-keyout", str(key), "-out", str(cert)),
        )
        return cert, key

    def encrypted(self, key: Path, password: str = PASSWORD) -> Path:
        """A copy of `key` that `password` opens."""
        target = key.with_name(f"{key.stem}-encrypted.pem")
        openssl(
            *("pkcs8", "-topk8", "-in", str(key), "-out", str(target)),
            *("-passout", f"pass:{password}"),
        )
        return target

    def trusting(self) -> ssl.SSLContext:
        """The context of a client that trusts this authority and nobody else."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cafile=self.cert)
        return context
