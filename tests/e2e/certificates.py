# SPDX-License-Identifier: Apache-2.0
"""Authorities and certificates for tests, made by openssl(1)."""

import ssl
import subprocess


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class Certificate:
    """`chain` and `key` are files; `key` is for its owner alone."""

    def __init__(self, folder, name):
        self.chain = folder / f"{name}.pem"
        self.key = folder / f"{name}.key"

    def context(self):
        """For a server of Python's."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain, self.key)
        return context


class Authority:
    """A root whose certificates are made as they are needed; `root` is its own, in a file."""

    def __init__(self, folder, name="root"):
        self.folder = folder / name
        self.folder.mkdir()
        self.folder.chmod(0o755)
        self.own = Certificate(self.folder, "root")
        self.root = self.own.chain
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-days", 30, "-subj", f"/CN={name}", "-keyout", self.own.key, "-out", self.root)

    def certificate(self, *names, days=30):
        """Of a server with these names; `days` may be past."""
        made = Certificate(self.folder, names[0])
        request = self.folder / "request"
        extensions = self.folder / "extensions"
        extensions.write_text("subjectAltName=" + ",".join(f"DNS:{name}" for name in names))
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-subj", f"/CN={names[0]}", "-keyout", made.key, "-out", request)
        leaf = self.folder / "leaf"
        openssl("x509", "-req", "-in", request, "-CA", self.root, "-CAkey", self.own.key,
                "-CAcreateserial", "-days", days, "-extfile", extensions, "-out", leaf)
        made.chain.write_bytes(leaf.read_bytes() + self.root.read_bytes())
        made.key.chmod(0o600)
        return made


def listen(certificate, tls="starttls"):
    """What a listener says of its TLS."""
    return f'tls = {tls}  certificate = "{certificate.chain}"  key = "{certificate.key}"'


def trusting(authority, **how):
    """For a client of Python's."""
    context = ssl.create_default_context(cafile=authority.root)
    for key, value in how.items():
        setattr(context, key, value)
    return context
