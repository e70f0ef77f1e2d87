# SPDX-License-Identifier: Apache-2.0
"""An OpenLDAP server in a directory of its own, with the people that a test gives it."""

import pathlib
import shutil
import socket
import subprocess

from peers import free_port, wait_for

SUFFIX = "dc=example,dc=org"
PEOPLE = "ou=people," + SUFFIX
SEARCHER = "cn=searcher," + SUFFIX

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def why_no_slapd():
    if shutil.which("slapd", path=PATH) is None:
        return "slapd is not installed"
    if not pathlib.Path("/etc/ldap/schema/inetorgperson.schema").exists():
        return "slapd's schemas are not installed"
    return None


class Slapd:
    """Nobody but SEARCHER (password "search") finds people; each reads himself. With a certificate
    there is TLS at `tls_port`, and StartTLS."""

    CONFIGURATION = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {root}/pid
{tls}
database mdb
maxsize 10485760
suffix "{suffix}"
directory {root}/data
rootdn "cn=admin,{suffix}"
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{searcher}" read by self read by * none
"""

    def __init__(self, root, people=(), certificate=None):
        self.root = pathlib.Path(root)
        self.port = free_port()
        self.tls_port = free_port() if certificate else None
        self.child = None
        (self.root / "data").mkdir(parents=True)
        tls = (f"TLSCACertificateFile {certificate.chain}\nTLSCertificateFile {certificate.chain}\n"
               f"TLSCertificateKeyFile {certificate.key}\n") if certificate else ""
        (self.root / "slapd.conf").write_text(self.CONFIGURATION.format(
            root=self.root, tls=tls, suffix=SUFFIX, searcher=SEARCHER))
        entries = [f"dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\n"
                   "dc: example\no: Example\n",
                   f"dn: {PEOPLE}\nobjectClass: organizationalUnit\nou: people\n",
                   f"dn: {SEARCHER}\nobjectClass: person\ncn: searcher\nsn: searcher\n"
                   "userPassword: search\n"]
        entries += [self.entry(*person) for person in people]
        subprocess.run([self.program("slapadd"), "-f", self.root / "slapd.conf"], check=True,
                       input="\n".join(entries), text=True, capture_output=True, timeout=60)

    @staticmethod
    def program(name):
        return shutil.which(name, path=PATH)

    @staticmethod
    def entry(uid, password, addresses=()):
        name = "".join(f"\\{c}" if c in ',+"\\<>;=#' else c for c in uid)
        mails = "".join(f"mail: {address}\n" for address in addresses)
        return (f"dn: uid={name},{PEOPLE}\nobjectClass: inetOrgPerson\nuid: {uid}\ncn: x\nsn: x\n"
                f"userPassword: {password}\n{mails}")

    def start(self):
        urls = f"ldap://127.0.0.1:{self.port}"
        if self.tls_port:
            urls += f" ldaps://127.0.0.1:{self.tls_port}"
        log = open(self.root / "log", "ab")
        self.child = subprocess.Popen([self.program("slapd"), "-h", urls, "-d", "stats", "-f",
                                       self.root / "slapd.conf"], stdin=subprocess.DEVNULL,
                                      stdout=log, stderr=log)
        log.close()
        for port in filter(None, (self.port, self.tls_port)):
            wait_for(lambda port=port: self.listens(port), 60, what="slapd")
        return self

    @staticmethod
    def listens(port):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=10).close()
        except OSError:
            return False
        return True

    def log(self):
        return (self.root / "log").read_text(errors="replace")

    def stop(self):
        if self.child:
            self.child.kill()
            self.child.wait()
            self.child = None
