"""The sections of the tree of options, and the tree. An option's type says its limits."""

import ipaddress
import os
import re
import socket
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec

from nacre.base.bounds import Ratio
from nacre.base.serving.sources import Balancers

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Amount = Annotated[int, msgspec.Meta(ge=0, le=10**7)]
Delay = Annotated[float, msgspec.Meta(ge=0)]
MaybeUuid = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})?\\Z")]


#: Hosts that mean every address of this machine.
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound

class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the tree."""


class Rpc(Section, frozen=True):
    """How the processes talk. port 0: on the loopback any free one, else the one after the APIs'. A host's is the next
    after that."""

    name: str = ""  # a control process's; empty: the machine's and the APIs' port
    listen: str = ""  # empty: as the APIs, `host`
    address: str = ""  # by which other machines reach this process; empty: where it listens
    port: Port = 0
    control: str = ""  # a node's: where a control process answers, "tcp://192.0.2.1:8775"
    control_name: str = ""  # what it is called
    control_key: str = ""  # its public key
    cloud: MaybeUuid = ""  # the id of the cloud that a host joins which has joined none, or has nothing of its last one
    node_keys: dict[str, str] = {}  # the control process's: host name -> public key


class Identity(Section, frozen=True):
    """Tokens and passwords. Lifetimes in seconds, memory in KiB."""

    token_lifetime: Annotated[int, msgspec.Meta(ge=1, le=31 * 86400)] = 3600 * 4
    admin_password: str = ""  # empty: generated at the first start
    demo_password: str = ""
    #: Opens the keys in the database: a key, or a file's absolute path. Empty: control/seal-key in the data folder.
    seal_key: str = ""
    argon2: tuple[Positive, Positive] = (2, 19456)  # passes over the memory, and how much of it
    logins: tuple[Positive, Positive] = (40, 80)  # of one address, and of all, that wait for their password's check


class Http(Section, frozen=True):
    """What a client's connection may keep a control process waiting with."""

    idle: Positive = 30  # seconds until a connection is closed after its last answer
    head: Positive = 32768  # bytes of a request's line and headers
    head_seconds: Seconds = 10.0  # until they have arrived
    open: tuple[Positive, Positive] = (500, 4000)  # connections without a request, of one address and of all
    #: Addresses and networks of balancers, which say in X-Forwarded-For whom a request is from.
    proxies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            Balancers(self.proxies)
        except ValueError as error:
            raise ValueError(f"proxies: {error}: name the balancers, as 192.0.2.9 or 192.0.2.0/28") from None


class Tls(Section, frozen=True):
    """How clients reach the APIs: encrypted as soon as others than this machine can. Files are PEM, by absolute path.

    mode auto: on beyond the loopback. off there is for an operator whose balancer ends TLS. Without a certificate the
    cloud is its own authority.
    """

    mode: Literal["auto", "on", "off"] = "auto"
    certificate: str = ""  # the operator's, with those that lead to its authority
    key: str = ""  # of the certificate; empty: it lies in the same file
    authority: str = ""  # what clients shall trust, for clouds.yaml; empty: what their system trusts
    names: tuple[str, ...] = ()  # more names and addresses in our own certificate

    def __post_init__(self) -> None:
        for name in ("certificate", "key", "authority"):
            if not getattr(self, name).startswith("/") and getattr(self, name):
                raise ValueError(f"tls: {name} must be a file's absolute path")
        if self.key and not self.certificate:
            raise ValueError("tls: key without certificate: name both, or neither")
        for name in self.names:
            if not re.fullmatch(r"[0-9A-Za-z*._:-]{1,253}", name):
                raise ValueError(f"tls: names: {name[:80]!r} is no host name and no address")


class Quotas(Section, frozen=True):
    """A project's limits unless an administrator set others; -1: none."""

    instances: int = 10
    cores: int = 20
    ram_mb: int = 51200
    networks: int = 100
    ports: int = 500
    security_groups: int = 10
    subnetpools: int = 50
    address_groups: int = 50
    address_scopes: int = 50


class Limits(Section, frozen=True):
    """What one request, or one project's requests, may take of a control process."""

    requests: Positive = 8  # of a project, worked on at the same time
    waiting: Annotated[int, msgspec.Meta(ge=0)] = 500  # that wait for those
    nesting: Annotated[int, msgspec.Meta(ge=16, le=256)] = 64  # lists and objects of a body that lie in each other
    servers: Positive = 1000  # that one request may make
    hints: Positive = 100  # scheduler hints of a server, and values of each of them
    hint_bytes: Positive = 16384  # of all of a server's hints together, as JSON
    networks: Positive = 100  # that a new server names
    credentials: Positive = 100  # of a user, those of EC2 among them
    credential_bytes: Positive = 16384  # of a credential's blob
    application_credentials: Positive = 100  # of a user
    access_rules: Positive = 500  # of a user
    trusts: Positive = 200  # of a user who lends


#: What may stand in `images.s3`.
S3_OPTIONS = frozenset({"bucket", "endpoint", "prefix", "region", "access_key", "secret_key"})


class Images(Section, frozen=True):
    """Where image data lies, how much of it (bytes), how many images and how many uploads at once a project may have
    (0: no limit). New data goes into the bucket if there is one, else into the shared folder, else into the own folder
    of the control process that takes it."""

    max_bytes: Positive = 1 << 40
    max_project_bytes: Annotated[int, msgspec.Meta(ge=0)] = 50 << 30
    max_project_images: Annotated[int, msgspec.Meta(ge=0)] = 500
    max_project_uploads: Annotated[int, msgspec.Meta(ge=0)] = 10
    folder: str = ""  # one that all control processes mount
    #: bucket, endpoint, prefix, region, access_key, secret_key: see `image/data/s3.py`.
    s3: dict[str, str] = {}

    def __post_init__(self) -> None:
        if self.folder and not self.folder.startswith("/"):
            raise ValueError(f"folder: {self.folder[:80]!r} must be an absolute path")
        if self.s3 and not self.s3.get("bucket"):
            raise ValueError("s3: name the bucket")
        if not self.s3.get("endpoint", "http").startswith("http"):
            raise ValueError("s3: the endpoint must be a URL")
        if unknown := self.s3.keys() - S3_OPTIONS:
            raise ValueError(f"s3: {sorted(unknown)[0][:80]!r} is none of {', '.join(sorted(S3_OPTIONS))}")


class Network(Section, frozen=True):
    """Networks: what they are made of unless an administrator says otherwise."""

    dns_domain: str = "novalocal"
    tenant_types: tuple[str, ...] = ("vxlan", "vlan", "local")
    vni_range: tuple[Positive, Positive] = (1, 65536)
    vlan_range: tuple[Positive, Positive] = (1, 4094)
    mechanisms: tuple[str, ...] = ("openvswitch",)
    mtu: Positive = 1500
    vxlan_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 4789  # UDP; the same on all hosts
    public_cidr: str = "172.24.4.0/24"


#: The names of `scheduler/filters.py`.
FilterName = Literal["zone", "tenant_isolation", "aggregate_extra_specs", "aggregate_image_properties",
                     "image_properties", "capabilities", "cpu_features"]


class Scheduler(Section, frozen=True):
    """How hosts are chosen. sign 1 packs, -1 spreads; best: choose at random among that many of the best, which keeps
    several schedulers apart. filters: asked in this order; left out are those that should not count."""

    period: Seconds = 10.0
    default_queue: str = "kvm"
    strategy: Literal["memory", "cpu", "disk"] = "memory"
    sign: Literal[1, -1] = -1
    best: Positive = 1
    attempts: Positive = 3
    filters: tuple[FilterName, ...] = get_args(FilterName)


class Conductor(Section, frozen=True):
    """Patience with hosts, in seconds: with work that does not move, with work in all, and with a host that fell silent
    while it started a server."""

    stalled: Seconds = 300.0
    ceiling: Seconds = 7200.0
    silence: Seconds = 300.0


class Metrics(Section, frozen=True):
    """Figures for Prometheus, on this machine's loopback only. port 0: not served."""

    port: Port = 0


class Node(Section, frozen=True):
    """A compute host. Periods in seconds, memory in MB."""

    name: str = ""  # empty: this machine's
    queue: str = "kvm"
    cpu_ratio: Ratio = 4.0
    ram_ratio: Ratio = 1.0
    disk_ratio: Ratio = 1.0
    reserved_memory_mb: Annotated[int, msgspec.Meta(ge=0)] = 512
    net_bandwidth: Amount = 0  # Mbit/s; 0: not counted
    disk_bandwidth: Amount = 0  # MB/s, of each of several directories; 0: not counted
    #: Directory -> shares of its I/O (0: not divided); empty: the data folder.
    disks: dict[str, Amount] = msgspec.field(default_factory=dict)
    report_period: Seconds = 10.0
    max_builds: Positive = 10
    virt_type: Literal["auto", "kvm", "qemu"] = "auto"
    libvirt_uri: str = "qemu:///system"
    tunnel_ip: str = "127.0.0.1"  # a loopback address: the only host; empty: no vxlan
    #: Physical network -> bridge (empty: one of the cloud's own, which nothing else is plugged into).
    bridge_mappings: dict[str, str] = msgspec.field(default_factory=lambda: {"public": ""})
    datapath: Literal["auto", "system", "netdev"] = "auto"

    def __post_init__(self) -> None:
        if list(self.bridge_mappings.values()).count("") > 1:
            raise ValueError("bridge_mappings: the cloud's own bridge can be one physical network's only: name others'")
        try:
            ipaddress.ip_address(self.tunnel_ip or "::")
        except ValueError:
            raise ValueError(f"tunnel_ip: {self.tunnel_ip[:80]!r} is not an address") from None
        for path in self.disks:
            if not path.startswith("/") or path != os.path.normpath(path) or len(path) > 255:
                raise ValueError(f"disks: {path[:80]!r} must be a plain absolute path of at most 255 characters")
        if any(self.disks.values()) and not self.disk_bandwidth:
            raise ValueError("disks: shares are parts of a directory's bandwidth: set disk_bandwidth, or 0 shares")


class Fake(Section, frozen=True):
    """The simulated hypervisor: how big it says it is, how long its work takes (seconds)."""

    vcpus: Positive = 64
    memory_mb: Positive = 262144
    disk_gb: Positive = 4096
    spawn_delay: Delay = 0.0


class Settings(Section, frozen=True):
    """The whole tree. region: the catalog's only one."""

    data_dir: str = ""
    host: str = "127.0.0.1"
    port: Port = 8774
    hypervisor: Literal["libvirt", "fake"] = "libvirt"
    region: str = "RegionOne"
    public_url: str = ""  # empty: http://HOST:PORT, or https
    #: Seconds between being told to end and the end of listening; none: 3, and 0 for a control of `nacre up`.
    drain: Delay | None = None
    database_url: str = ""  # empty: a SQLite file in the data folder
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_json: bool = False
    http: Http = Http()
    tls: Tls = Tls()
    rpc: Rpc = Rpc()
    identity: Identity = Identity()
    quotas: Quotas = Quotas()
    limits: Limits = Limits()
    images: Images = Images()
    network: Network = Network()
    scheduler: Scheduler = Scheduler()
    conductor: Conductor = Conductor()
    metrics: Metrics = Metrics()
    node: Node = Node()
    fake: Fake = Fake()

    @property
    def data(self) -> Path:
        """The data folder."""
        return Path(self.data_dir)

    @property
    def control(self) -> Path:
        """The folder in it that control writes in, and nobody else."""
        return self.data / "control"

    @property
    def url(self) -> str:
        """How clients reach the APIs, without a closing slash."""
        host = "127.0.0.1" if self.host in EVERYWHERE else f"[{self.host}]" if ":" in self.host else self.host
        return (self.public_url or f"{'https' if self.tls_on else 'http'}://{host}:{self.port}").rstrip("/")

    @property
    def tls_on(self) -> bool:
        """Whether the APIs speak TLS themselves."""
        return self.tls.mode == "on" or (self.tls.mode == "auto" and not is_loopback(self.host))

    @property
    def cacert(self) -> Path | None:
        """The file of the authority that clients must trust; None: none but what their system trusts."""
        if self.tls.authority:
            return Path(self.tls.authority)
        return self.data / "authority.pem" if self.tls_on and not self.tls.certificate else None

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.control / 'nacre.db'}"

    @property
    def rpc_host(self) -> str:
        """Where this machine's processes are to answer each other and those of other machines."""
        host = self.rpc.listen or self.host
        return "127.0.0.1" if host == "localhost" else host

    @property
    def rpc_port(self) -> int:
        """Of a control process; 0: any free one."""
        return self.rpc.port or (0 if is_loopback(self.rpc_host) else self.port + 1)

    @property
    def control_name(self) -> str:
        """What this control process is called."""
        return self.rpc.name or f"{socket.gethostname()}:{self.port}"

    @property
    def host_name(self) -> str:
        """What this compute host is called."""
        return self.node.name or socket.gethostname()

    @property
    def own_host(self) -> str:
        """The compute host that `nacre up` starts beside this control; empty: none."""
        return self.host_name if self.host_name in self.rpc.node_keys else ""


def is_loopback(host: str) -> bool:
    """Whether only this machine gets there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
