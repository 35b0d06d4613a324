"""Text of a pod's resolv.conf and hosts file, as kubelet writes them. Pure but for reading the host's own two files."""

from pathlib import Path

from nodeagent.protocol import Pod

CLUSTER_DOMAIN = "cluster.local"
_HEAD = """\
# Managed by sshoal.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


def hosts(pod: Pod, ip: str, *, etc: str = "/etc") -> str:
    """A pod on the host's network gets the host's own file. An empty `ip`: not known yet, its line is left out."""
    text = _read(Path(etc) / "hosts") if pod.host_network else _HEAD + _own_line(pod, ip)
    if pod.host_aliases:
        text += "\n# Entries added by HostAliases.\n"
        text += "".join("\t".join((alias.ip, *alias.names)) + "\n" for alias in pod.host_aliases)
    return text


def _own_line(pod: Pod, ip: str) -> str:
    if not ip:
        return ""
    name = hostname(pod)
    return f"{ip}\t{domain_name(pod)}\t{name}\n" if pod.subdomain else f"{ip}\t{name}\n"


def hostname(pod: Pod) -> str:
    """A host name has 63 characters at most and no '-' or '.' at its end: kubelet cuts a longer pod name so."""
    return pod.hostname or pod.name[:63].rstrip("-.")


def domain_name(pod: Pod) -> str:
    """Its host name with subdomain and domain; the plain one without a subdomain, as in Kubernetes."""
    name = hostname(pod)
    return f"{name}.{pod.subdomain}.{pod.namespace}.svc.{CLUSTER_DOMAIN}" if pod.subdomain else name


def resolv_conf(pod: Pod, *, etc: str = "/etc", resolved: str = "/run/systemd/resolve/resolv.conf") -> str:
    """Given servers replace the host's; without, the pod's searches and options come on top of the host's.

    A local resolver (127.0.0.53) does not answer inside a pod's own network: then the servers that systemd-resolved itself asks are taken.
    """
    dns = pod.dns
    servers, searches, options = list(dns.servers), list(dns.searches), list(dns.options)
    if not servers:
        host = _parse(_read(Path(etc) / "resolv.conf"))
        if not pod.host_network and all(_is_loopback(server) for server in host["nameserver"]):
            host = _parse(_read(Path(resolved)))
        servers = [item for item in host["nameserver"] if pod.host_network or not _is_loopback(item)]
        searches = list(dict.fromkeys(host["search"] + searches))
        options = list({item.partition(":")[0]: item for item in host["options"] + options}.values())
    lines = [f"search {' '.join(searches)}"] if searches else []
    lines += [f"nameserver {server}" for server in servers]
    lines += [f"options {' '.join(options)}"] if options else []
    return "".join(f"{line}\n" for line in lines)


def _parse(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"nameserver": [], "search": [], "options": []}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] not in found:
            continue
        if words[0] == "search":
            found["search"] = words[1:]  # the last one counts
        else:
            found[words[0]] += words[1:2] if words[0] == "nameserver" else words[1:]
    return found


def _is_loopback(server: str) -> bool:
    return server.startswith("127.") or server == "::1"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
