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
    if shutil.which("ldapmodify", path=PATH) is None:
        return "ldapmodify is not installed"
    if not pathlib.Path("/etc/ldap/schema/inetorgperson.schema").exists():
        return "slapd's schemas are not installed"
    return None


class Slapd:
    """Nobody but SEARCHER (password "search") finds people; each reads himself. With a certificate
    there is TLS at `tls_port`, and StartTLS. `limits` is what slapd.conf(5) says to SEARCHER."""

    CONFIGURATION = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
attributetype ( 1.2.840.113556.1.2.210 NAME 'proxyAddresses' EQUALITY caseIgnoreMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.7914.1.2.1.3 NAME 'mailAlternateAddress' EQUALITY caseIgnoreMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
objectclass ( 1.3.6.1.4.1.7914.1.2.2.1 NAME 'qmailUser' SUP top AUXILIARY
  MAY ( proxyAddresses $ mailAlternateAddress ) )
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {root}/pid
{tls}
database mdb
maxsize 10485760
suffix "{suffix}"
directory {root}/data
rootdn "cn=admin,{suffix}"
rootpw admin
{limits}
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{searcher}" read by self read by * none
"""

    def __init__(self, root, people=(), certificate=None, limits=""):
        self.root = pathlib.Path(root)
        self.port = free_port()
        self.tls_port = free_port() if certificate else None
        self.child = None
        self.certificate = certificate
        (self.root / "data").mkdir(parents=True)
        self.configure(limits)
        entries = [f"dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\n"
                   "dc: example\no: Example\n",
                   f"dn: {PEOPLE}\nobjectClass: organizationalUnit\nou: people\n",
                   f"dn: {SEARCHER}\nobjectClass: person\ncn: searcher\nsn: searcher\n"
                   "userPassword: search\n"]
        entries += [self.entry(*person) for person in people]
        subprocess.run([self.program("slapadd"), "-f", self.root / "slapd.conf"], check=True,
                       input="\n".join(entries), text=True, capture_output=True, timeout=60)

    def configure(self, limits):
        certificate = self.certificate
        tls = (f"TLSCACertificateFile {certificate.chain}\nTLSCertificateFile {certificate.chain}\n"
               f"TLSCertificateKeyFile {certificate.key}\n") if certificate else ""
        (self.root / "slapd.conf").write_text(self.CONFIGURATION.format(
            root=self.root, tls=tls, suffix=SUFFIX, searcher=SEARCHER,
            limits=f'limits dn.exact="{SEARCHER}" {limits}' if limits else ""))

    @staticmethod
    def program(name):
        return shutil.which(name, path=PATH)

    @staticmethod
    def entry(uid, password, addresses=(), more=()):
        """`more` are further attributes, a name and a value each."""
        name = "".join(f"\\{c}" if c in ',+"\\<>;=#' else c for c in uid)
        mails = "".join(f"mail: {address}\n" for address in addresses)
        mails += "".join(f"{attribute}: {value}\n" for attribute, value in more)
        return (f"dn: uid={name},{PEOPLE}\nobjectClass: inetOrgPerson\nobjectClass: qmailUser\n"
                f"uid: {uid}\ncn: x\nsn: x\nuserPassword: {password}\n{mails}")

    def modify(self, *changes):
        """LDIF that ldapmodify(1) takes, a change each."""
        subprocess.run([self.program("ldapmodify"), "-x", "-H", f"ldap://127.0.0.1:{self.port}",
                        "-D", f"cn=admin,{SUFFIX}", "-w", "admin"], check=True, timeout=60,
                       input="\n\n".join(changes) + "\n", text=True, capture_output=True)

    def add(self, *person):
        head, rest = self.entry(*person).split("\n", 1)
        self.modify(f"{head}\nchangetype: add\n{rest}")

    def remove(self, uid):
        self.modify(f"dn: uid={uid},{PEOPLE}\nchangetype: delete")

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
