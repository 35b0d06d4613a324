"""What is wrong with a manifest is said once, with its place and what to write instead."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import copy
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from controller.model.errors import ManifestError
from controller.model.manifest import load
from nodeagent.agent import CONTAINERS_MAX

BAD = sorted((Path(__file__).parent.parent / "cases" / "manifests" / "bad").glob("*.yaml"))

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "a"},
    "spec": {"containers": [{"name": "c", "image": "i:1"}]},
}
DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "a"},
    "spec": {
        "selector": {"matchLabels": {"app": "a"}},
        "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
    },
}
CONFIG_MAP: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
SECRET: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}

DELETED = object()


def with_field(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `base` with `value` at `path`; numbers in the path are indexes, and what is missing is made."""
    thing = copy.deepcopy(base)
    here: Any = thing
    steps = [int(step) if step.isdigit() else step for step in path.split("/")]
    for step, following in pairwise(steps):
        if isinstance(here, list) and step == len(here):
            here.append([] if isinstance(following, int) else {})
        elif isinstance(here, dict):
            here.setdefault(step, [] if isinstance(following, int) else {})
        here = here[step]
    if value is DELETED:
        del here[steps[-1]]
    elif isinstance(here, list) and steps[-1] == len(here):
        here.append(value)
    else:
        here[steps[-1]] = value
    return thing


def problems_of(text: str, *, lenient: bool = False) -> list[str]:
    with pytest.raises(ManifestError) as refused:
        load(text, "a.yaml", lenient=lenient)
    assert refused.value.exit_code == 2
    return [str(problem) for problem in refused.value.problems]


@pytest.mark.parametrize("case", BAD, ids=lambda path: path.stem)
def test_bad_file(case: Path) -> None:
    """The expected problems are the comments `# error: LINE: FIELD: MESSAGE` in the file, and its hint `# hint: TEXT`."""
    text = case.read_text()
    expected = [line.removeprefix("# error: ") for line in text.splitlines() if line.startswith("# error: ")]
    hints = [line.removeprefix("# hint: ") for line in text.splitlines() if line.startswith("# hint: ")]
    with pytest.raises(ManifestError) as refused:
        load(text, "a.yaml")
    assert [str(problem).removeprefix("a.yaml:") for problem in refused.value.problems] == expected
    assert refused.value.hint == "".join(hints)


NOT_YET = "Kubernetes has it, sshoal does not support it yet"
LABEL_RULE = "must be 1–63 lower-case letters, digits or '-', and begin and end with a letter or digit"
NAME_RULE = (
    "must be 1–253 lower-case letters, digits, '-' or '.', "
    "and every part between dots must begin and end with a letter or digit"
)
VALUE_RULE = "must be at most 63 letters, digits, '-', '_' or '.', and begin and end with a letter or digit"
KEY_RULE = (
    "must be 1–63 letters, digits, '-', '_' or '.' (after an optional prefix and '/'), "
    "and begin and end with a letter or digit"
)
C = "spec/containers/0"
AT = "spec.containers[0]"

POD_TABLE: list[tuple[str, Any, str]] = [
    # names
    ("metadata/name", "Web", f"metadata.name: 'Web' {NAME_RULE}"),
    ("metadata/name", "-a", f"metadata.name: '-a' {NAME_RULE}"),
    ("metadata/name", "a..b", f"metadata.name: 'a..b' {NAME_RULE}"),
    ("metadata/name", "a/../b", f"metadata.name: 'a/../b' {NAME_RULE}"),
    ("metadata/name", "a;reboot", f"metadata.name: 'a;reboot' {NAME_RULE}"),
    ("metadata/name", "a\nb", f"metadata.name: 'a\\nb' {NAME_RULE}"),
    ("metadata/name", "a\n", f"metadata.name: 'a\\n' {NAME_RULE}"),
    ("metadata/name", "a\u202eb", f"metadata.name: 'a\\u202eb' {NAME_RULE}"),
    ("metadata/name", "é", f"metadata.name: '\\xe9' {NAME_RULE}"),
    ("metadata/name", "", f"metadata.name: '' {NAME_RULE}"),
    ("metadata/name", "a" * 254, f"metadata.name: '{'a' * 80}'… {NAME_RULE}"),
    ("metadata/name", DELETED, "metadata.name: is required"),
    ("metadata/name", ["a"], "metadata.name: must be a text, not a list"),
    ("metadata/namespace", "a.b", f"metadata.namespace: 'a.b' {LABEL_RULE}"),
    ("metadata/labels", {"k": "-x"}, f"metadata.labels.k: value '-x' {VALUE_RULE}"),
    ("metadata/labels", {"k": "x" * 64}, f"metadata.labels.k: value '{'x' * 64}' {VALUE_RULE}"),
    (
        "metadata/labels",
        {"A_/b": ""},
        "metadata.labels.A_/b: key 'A_/b': the part before '/' must be a DNS name such as example.com",
    ),
    (
        "metadata/annotations",
        {"a b": ""},
        "metadata.annotations.a b: key 'a b' must be 1–63 letters, digits, '-', '_' or '.' "
        "(after an optional prefix and '/'), and begin and end with a letter or digit",
    ),
    ("metadata/annotations", {"a": "x" * 262144}, "metadata.annotations: are larger than 256 KiB together"),
    ("metadata/labels", [], "metadata.labels: must be a mapping, not a list"),
    # shape
    ("spec", "x", "spec: must be a mapping, not a text"),
    ("spec", DELETED, "spec: is required"),
    ("spec/containers", DELETED, "spec.containers: is required"),
    ("spec/containers", [], "spec.containers: must name one container at least"),
    ("spec/containers", {"name": "c"}, "spec.containers: must be a list, not a mapping"),
    ("spec/containers", ["c"], "spec.containers[0]: must be a mapping, not a text"),
    (f"{C}/name", DELETED, f"{AT}.name: is required"),
    (f"{C}/name", "c.d", f"{AT}.name: 'c.d' {LABEL_RULE}"),
    (f"{C}/image", DELETED, f"{AT}.image: is required"),
    (f"{C}/image", "", f"{AT}.image: '' is not an image reference such as docker.io/library/nginx:1.27"),
    (f"{C}/image", "-v", f"{AT}.image: '-v' is not an image reference such as docker.io/library/nginx:1.27"),
    (f"{C}/image", "a b", f"{AT}.image: 'a b' is not an image reference such as docker.io/library/nginx:1.27"),
    (
        f"{C}/image",
        "Nginx",
        f"{AT}.image: 'Nginx' is not an image reference such as docker.io/library/nginx:1.27; "
        "repository names are lower-case",
    ),
    (f"{C}/comand", ["a"], f"{AT}.comand: unknown field 'comand': did you mean 'command'?"),
    (f"{C}/enviroment", [], f"{AT}.enviroment: unknown field 'enviroment': did you mean 'env'?"),
    (f"{C}/imagePullSecrets", [], f"{AT}.imagePullSecrets: unknown field 'imagePullSecrets' here: it belongs to spec"),
    (f"{C}/securityContext", {"fsGroup": 1}, f"{AT}.securityContext.fsGroup: unknown field 'fsGroup' here: it belongs to spec.securityContext"),
    (f"{C}/Image", "x", f"{AT}.Image: unknown field 'Image': did you mean 'image'?"),
    (f"{C}/working_dir", "/", f"{AT}.working_dir: unknown field 'working_dir': did you mean 'workingDir'?"),
    ("replicas", 3, "replicas: unknown field 'replicas': there are apiVersion, kind, metadata, spec"),
    ("image", "x", "image: unknown field 'image' here: it belongs to spec.containers[]"),
    (f"{C}/command", "sh", f"{AT}.command: must be a list, not a text"),
    (f"{C}/workingDir", "a", f"{AT}.workingDir: must begin with '/'"),
    (f"{C}/imagePullPolicy", "always", f"{AT}.imagePullPolicy: must be Always, IfNotPresent or Never, not 'always': did you mean Always?"),
    (f"{C}/restartPolicy", "Always", f"{AT}.restartPolicy: may only be set on init containers"),
    (f"{C}/restartPolicy", "Never", f"{AT}.restartPolicy: Never: Kubernetes has it, sshoal does not support it yet (--lenient runs without it)"),
    ("spec/containers/1", {"name": "c", "image": "i"}, "spec.containers[1].name: 'c' is there twice: also spec.containers[0].name"),
    ("spec/initContainers/0", {"name": "c", "image": "i"}, "spec.containers[0].name: 'c' is there twice: also spec.initContainers[0].name"),
    ("spec/initContainers/0", {"name": "i", "image": "i", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}, "spec.initContainers[0].lifecycle: may not be set on an init container without restartPolicy: Always"),
    ("spec/initContainers/0", {"name": "i", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}, "spec.initContainers[0].readinessProbe: may not be set on an init container without restartPolicy: Always"),
    # scalars
    ("spec/hostNetwork", "yes", "spec.hostNetwork: must be true or false, not 'yes'"),
    ("spec/hostNetwork", "On", "spec.hostNetwork: must be true or false, not 'on'"),
    ("spec/hostNetwork", 1, "spec.hostNetwork: must be true or false, not a number"),
    ("spec/terminationGracePeriodSeconds", "30", "spec.terminationGracePeriodSeconds: must be a whole number, not a text"),
    ("spec/terminationGracePeriodSeconds", 1.5, "spec.terminationGracePeriodSeconds: must be a whole number, not a number with a fraction"),
    ("spec/terminationGracePeriodSeconds", True, "spec.terminationGracePeriodSeconds: must be a whole number, not true or false"),
    ("spec/terminationGracePeriodSeconds", -1, "spec.terminationGracePeriodSeconds: must be at least 0"),
    ("spec/terminationGracePeriodSeconds", 10**20, "spec.terminationGracePeriodSeconds: must be at most 2147483647"),
    ("spec/restartPolicy", "Sometimes", "spec.restartPolicy: must be Always, OnFailure or Never, not 'Sometimes'"),
    ("spec/restartPolicy", 3, "spec.restartPolicy: must be Always, OnFailure or Never, not a number"),
    ("spec/restartPolicy", [""], "spec.restartPolicy: must be Always, OnFailure or Never, not a list"),
    ("spec/terminationGracePeriodSeconds", 1e300, "spec.terminationGracePeriodSeconds: must be a whole number, not a number with a fraction"),
    # an empty text where a value of its own syntax must be
    ("spec/volumes/0", {"name": "v", "emptyDir": {"sizeLimit": ""}}, "spec.volumes[0].emptyDir.sizeLimit: '' is not a quantity: write a number with m, k, M, G, T, Ki, Mi, Gi or Ti, such as \"250m\" or \"1Gi\""),
    ("spec/volumes/0", {"name": "", "emptyDir": {}}, f"spec.volumes[0].name: '' {LABEL_RULE}"),
    # quantities
    (f"{C}/resources/limits", {"cpu": -1}, f"{AT}.resources.limits.cpu: '-1' is negative"),
    (f"{C}/resources/limits", {"memory": "1 GB"}, f"{AT}.resources.limits.memory: '1 GB' is not a quantity: write a number with m, k, M, G, T, Ki, Mi, Gi or Ti, such as \"250m\" or \"1Gi\""),
    (f"{C}/resources/limits", {"memory": []}, f"{AT}.resources.limits.memory: must be a quantity such as \"250m\" or \"1Gi\""),
    (f"{C}/resources/limits", {"memry": "1Gi"}, f"{AT}.resources.limits.memry: must be cpu, memory or ephemeral-storage, not 'memry': did you mean memory?"),
    (f"{C}/resources", {"limits": {"cpu": "1"}, "requests": {"cpu": 2}}, f"{AT}.resources.requests.cpu: 2 is more than the limit, 1"),
    (f"{C}/resources/limits", {"nvidia.com/gpu": 1}, f"{AT}.resources.limits.nvidia.com/gpu: {NOT_YET} (--lenient runs without it)"),
    # ports
    (f"{C}/ports/0", {"containerPort": 0}, f"{AT}.ports[0].containerPort: must be a port: 1–65535"),
    (f"{C}/ports/0", {"containerPort": 65536}, f"{AT}.ports[0].containerPort: must be a port: 1–65535"),
    (f"{C}/ports/0", {"containerPort": "http"}, f"{AT}.ports[0].containerPort: must be a whole number, not a text"),
    (f"{C}/ports/0", {"containerPort": 1, "name": "1"}, f"{AT}.ports[0].name: '1' must be 1–15 lower-case letters, digits or single '-', with one letter at least"),
    (f"{C}/ports/0", {"containerPort": 1, "hostIP": "here"}, f"{AT}.ports[0].hostIP: 'here' is not an IP address"),
    (f"{C}/ports", [{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}], f"{AT}.ports[1].hostPort: 9 is taken by {AT}.ports[0].hostPort"),
    (f"{C}/ports", [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}], f"{AT}.ports[1].name: 'a' is there twice: also {AT}.ports[0].name"),
    (f"{C}/ports/0", {"containerPort": 1, "hostPort": -1}, f"{AT}.ports[0].hostPort: must be a port: 1–65535"),
    ("spec/initContainers/0", {"name": "i", "image": "i", "ports": [{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]}, "spec.initContainers[0].ports[1].hostPort: 9 is taken by spec.initContainers[0].ports[0].hostPort"),
    ("spec", {"initContainers": [{"name": "s", "image": "i", "restartPolicy": "Always", "ports": [{"containerPort": 1, "hostPort": 9}]}], "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1, "hostPort": 9}]}]}, f"{AT}.ports[0].hostPort: 9 is taken by spec.initContainers[0].ports[0].hostPort"),
    ("spec", {"hostNetwork": True, "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1}, {"containerPort": 1, "protocol": "UDP"}]}, {"name": "d", "image": "i", "ports": [{"containerPort": 1}]}]}, f"spec.containers[1].ports[0].containerPort: 1 is taken by {AT}.ports[0].containerPort"),
    ("spec", {"hostNetwork": True, "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1, "hostPort": 2}]}]}, f"{AT}.ports[0].hostPort: must equal containerPort (1) when hostNetwork is true"),
    # environment
    (f"{C}/env/0", {"name": "A=B"}, f"{AT}.env[0].name: 'A=B' must be printable ASCII characters without '='"),
    (f"{C}/env/0", {"name": ""}, f"{AT}.env[0].name: '' must be printable ASCII characters without '='"),
    (f"{C}/env/0", {"name": "A", "value": {"secret": "x"}}, f"{AT}.env[0].value: must be a text, not a mapping"),
    (f"{C}/env/0", {"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, f"{AT}.env[0].valueFrom: may not be set together with value"),
    (f"{C}/env/0", {"name": "A", "valueFrom": {}}, f"{AT}.env[0].valueFrom: needs one of fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef"),
    (f"{C}/env/0", {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}, "secretKeyRef": {"name": "a", "key": "b"}}}, f"{AT}.env[0].valueFrom: may have only one of fieldRef and secretKeyRef"),
    (f"{C}/env/0", {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.hostname"}}}, f"{AT}.env[0].valueFrom.fieldRef.fieldPath: must be metadata.name, metadata.namespace, metadata.uid, metadata.labels['…'], metadata.annotations['…'], spec.nodeName, spec.serviceAccountName, status.hostIP, status.hostIPs, status.podIP or status.podIPs"),
    (f"{C}/env/0", {"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}, f"{AT}.env[0].valueFrom.resourceFieldRef.resource: must be limits or requests of cpu, memory or ephemeral-storage, such as limits.cpu"),
    (f"{C}/env/0", {"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "containerName": "x"}}}, f"{AT}.env[0].valueFrom.resourceFieldRef.containerName: 'x' is no container of this pod"),
    (f"{C}/env/0", {"name": "A", "valueFrom": {"secretKeyRef": {"name": "a"}}}, f"{AT}.env[0].valueFrom.secretKeyRef.key: is required"),
    (f"{C}/env/0", {"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1Mi"}}}, f"{AT}.env[0].valueFrom.resourceFieldRef.divisor: must be one of 1, 1m"),
    (f"{C}/envFrom/0", {"prefix": "A"}, f"{AT}.envFrom[0]: needs one of configMapRef, secretRef"),
    (f"{C}/envFrom/0", {"prefix": "A=", "configMapRef": {"name": "a"}}, f"{AT}.envFrom[0].prefix: must be printable ASCII characters without '='"),
    # probes and hooks
    (f"{C}/livenessProbe", {}, f"{AT}.livenessProbe: needs one of httpGet, tcpSocket, exec, grpc"),
    (f"{C}/livenessProbe", {"exec": {"command": ["a"]}, "grpc": {"port": 1}}, f"{AT}.livenessProbe: may have only one of exec and grpc"),
    (f"{C}/livenessProbe", {"exec": {"command": []}}, f"{AT}.livenessProbe.exec.command: must not be empty"),
    (f"{C}/livenessProbe", {"tcpSocket": {"port": 1}, "successThreshold": 2}, f"{AT}.livenessProbe.successThreshold: must be 1 here, not 2"),
    (f"{C}/startupProbe", {"tcpSocket": {"port": 1}, "successThreshold": 2}, f"{AT}.startupProbe.successThreshold: must be 1 here, not 2"),
    (f"{C}/startupProbe", {"tcpSocket": {"port": "http"}}, f"{AT}.startupProbe.tcpSocket.port: 'http' is no named port of this container"),
    (f"{C}/startupProbe", {"tcpSocket": {"port": 0}}, f"{AT}.startupProbe.tcpSocket.port: must be a port: 1–65535"),
    (f"{C}/startupProbe", {"tcpSocket": {"port": True}}, f"{AT}.startupProbe.tcpSocket.port: must be a port number or the name of a port"),
    (f"{C}/startupProbe", {"httpGet": {"port": 80, "path": "/a b"}}, f"{AT}.startupProbe.httpGet.path: may not hold spaces or control characters"),
    (f"{C}/startupProbe", {"httpGet": {"port": 80, "scheme": "https"}}, f"{AT}.startupProbe.httpGet.scheme: must be HTTP or HTTPS, not 'https': did you mean HTTPS?"),
    (f"{C}/startupProbe", {"httpGet": {"port": 80, "host": "a\r\nb"}}, f"{AT}.startupProbe.httpGet.host: must be a host name or an address"),
    (f"{C}/startupProbe", {"httpGet": {"port": 80, "httpHeaders": [{"name": "a: b"}]}}, f"{AT}.startupProbe.httpGet.httpHeaders[0].name: holds characters that are not allowed here"),
    (f"{C}/startupProbe", {"httpGet": {"port": 80, "httpHeaders": [{"name": "a", "value": "x\r\ny"}]}}, f"{AT}.startupProbe.httpGet.httpHeaders[0].value: holds characters that are not allowed here"),
    (f"{C}/startupProbe", {"tcpSocket": {"port": 1}, "periodSeconds": -1}, f"{AT}.startupProbe.periodSeconds: must be at least 0"),
    (f"{C}/startupProbe", {"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 0}, f"{AT}.startupProbe.terminationGracePeriodSeconds: must be at least 1"),
    (f"{C}/readinessProbe", {"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 5}, f"{AT}.readinessProbe.terminationGracePeriodSeconds: may not be set: this probe kills nothing"),
    (f"{C}/lifecycle/preStop", {}, f"{AT}.lifecycle.preStop: needs one of exec, httpGet, tcpSocket, sleep"),
    (f"{C}/lifecycle/preStop", {"sleep": {"seconds": 31}}, f"{AT}.lifecycle.preStop.sleep.seconds: must be at most terminationGracePeriodSeconds (30)"),
    # security
    (f"{C}/securityContext/runAsUser", "root", f"{AT}.securityContext.runAsUser: must be a whole number, not a text"),
    (f"{C}/securityContext", {"privileged": True, "allowPrivilegeEscalation": False}, f"{AT}.securityContext.allowPrivilegeEscalation: may not be false when privileged is true"),
    (f"{C}/securityContext", {"capabilities": {"add": ["SYS_ADMIN"]}, "allowPrivilegeEscalation": False}, f"{AT}.securityContext.allowPrivilegeEscalation: may not be false when SYS_ADMIN is added"),
    (f"{C}/securityContext", {"capabilities": {"add": ["net;x"]}}, f"{AT}.securityContext.capabilities.add[0]: must be a capability such as NET_BIND_SERVICE, or ALL"),
    (f"{C}/securityContext", {"seccompProfile": {"type": "Localhost"}}, f"{AT}.securityContext.seccompProfile: type Localhost: {NOT_YET} (--lenient runs without this seccompProfile)"),
    (f"{C}/securityContext/seLinuxOptions", {"level": "s0"}, f"{AT}.securityContext.seLinuxOptions: {NOT_YET} (--lenient runs without it)"),
    ("spec/securityContext", {"sysctls": [{"name": "a b", "value": "1"}]}, "spec.securityContext.sysctls[0].name: holds characters that are not allowed here"),
    ("spec/securityContext", {"sysctls": [{"name": "net.a", "value": "1"}, {"name": "net.a", "value": "2"}]}, "spec.securityContext.sysctls[1].name: 'net.a' is there twice: also spec.securityContext.sysctls[0].name"),
    ("spec", {"hostNetwork": True, "containers": [{"name": "c", "image": "i"}], "securityContext": {"sysctls": [{"name": "net/core/somaxconn", "value": "1"}]}}, "spec.securityContext.sysctls[0].name: may not be set when hostNetwork is true: it would be the node's"),
    ("spec", {"hostIPC": True, "containers": [{"name": "c", "image": "i"}], "securityContext": {"sysctls": [{"name": "kernel.sem", "value": "1"}]}}, "spec.securityContext.sysctls[0].name: may not be set when hostIPC is true: it would be the node's"),
    (f"{C}/lifecycle", {"stopSignal": "SIGFOO"}, f"{AT}.lifecycle.stopSignal: 'SIGFOO' is no signal, such as SIGTERM or SIGUSR1"),
    (f"{C}/lifecycle", {"stopSignal": "SIGRTMIN+16"}, f"{AT}.lifecycle.stopSignal: 'SIGRTMIN+16' is no signal, such as SIGTERM or SIGUSR1"),
    ("spec/priorityClassName", "A_b", f"spec.priorityClassName: 'A_b' {NAME_RULE}"),
    # volumes
    ("spec/volumes/0", {"name": "v", "configMap": {"name": "a", "items": [{"key": "k", "path": "..x"}]}}, "spec.volumes[0].configMap.items[0].path: may not begin with '..'"),
    (f"{C}/env/0", {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a b']"}}}, f"{AT}.env[0].valueFrom.fieldRef.fieldPath: key 'a b' {KEY_RULE}"),
    ("spec/volumes/0", {"name": "v", "downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "metadata.annotations['a b']"}}]}}, f"spec.volumes[0].downwardAPI.items[0].fieldRef.fieldPath: key 'a b' {KEY_RULE}"),
    ("spec/volumes/0", {"name": "v", "projected": {"sources": [{"configMap": {"name": "a", "items": [{"key": "x", "path": "f"}]}}, {"downwardAPI": {"items": [{"path": "f", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}, "spec.volumes[0].projected.sources[1].downwardAPI.items[0].path: 'f' is a file of sources[0] too"),
    ("spec/volumes/0", {"name": "v", "downwardAPI": {"items": [{"path": "..x", "fieldRef": {"fieldPath": "metadata.name"}}]}}, "spec.volumes[0].downwardAPI.items[0].path: may not begin with '..'"),
    (f"{C}/volumeMounts/0", {"name": "v", "mountPath": "/a"}, f"{AT}.volumeMounts[0].name: 'v' is no volume of this pod: it has none"),
    ("spec", {"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "dat", "mountPath": "/a"}]}], "volumes": [{"name": "data"}]}, f"{AT}.volumeMounts[0].name: 'dat' is no volume of this pod: there are data"),
    ("spec", {"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "a"}]}], "volumes": [{"name": "v"}]}, f"{AT}.volumeMounts[0].mountPath: must begin with '/'"),
    ("spec", {"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/a:/b"}]}], "volumes": [{"name": "v"}]}, f"{AT}.volumeMounts[0].mountPath: may not hold '..' or ':'"),
    ("spec", {"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/a", "subPath": "../b"}]}], "volumes": [{"name": "v"}]}, f"{AT}.volumeMounts[0].subPath: must be a relative path without '..'"),
    ("spec", {"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}]}], "volumes": [{"name": "v"}]}, f"{AT}.volumeMounts[1].mountPath: '/a' is there twice: also {AT}.volumeMounts[0].mountPath"),
    ("spec/volumes/0", {"name": "v", "emptyDir": {}, "hostPath": {"path": "/a"}}, "spec.volumes[0]: may have only one of emptyDir and hostPath"),
    ("spec/volumes", [{"name": "v"}, {"name": "v"}], "spec.volumes[1].name: 'v' is there twice: also spec.volumes[0].name"),
    ("spec/volumes/0", {"name": "v", "hostPath": {"path": "/a/../etc"}}, "spec.volumes[0].hostPath.path: must begin with '/' and may not hold '..' or ':'"),
    ("spec/volumes/0", {"name": "v", "configMap": {"name": "a", "items": [{"key": "k", "path": "/etc/x"}]}}, "spec.volumes[0].configMap.items[0].path: must be a relative path without '..'"),
    ("spec/volumes/0", {"name": "v", "configMap": {"name": "a", "defaultMode": 0o1000}}, "spec.volumes[0].configMap.defaultMode: must be at most 511"),
    ("spec/volumes/0", {"name": "v", "emptyDir": {"medium": "HugePages"}}, f"spec.volumes[0].emptyDir.medium: HugePages: {NOT_YET} (--lenient runs without it)"),
    ("spec/volumes/0", {"name": "v", "csi": {"driver": "a"}}, f"spec.volumes[0].csi: {NOT_YET} (--lenient leaves this object out)"),
    ("spec/volumes/0", {"name": "v", "persistentVolumeClaim": {"claimName": "data-*"}}, "spec.volumes[0].persistentVolumeClaim.claimName: 'data-*' must be 1–253 lower-case letters, digits, '-' or '.', and every part between dots must begin and end with a letter or digit"),
    ("spec/volumes/0", {"name": "v", "emptyDir": {}, "persistentVolumeClaim": {"claimName": "a"}}, "spec.volumes[0]: may have only one of emptyDir and persistentVolumeClaim"),
    ("spec/volumes/0", {"name": "v", "projected": {"sources": [{}]}}, "spec.volumes[0].projected.sources[0]: needs one of configMap, secret, downwardAPI"),
    ("spec/volumes/0", {"name": "v", "downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "status.podIP"}}]}}, "spec.volumes[0].downwardAPI.items[0].fieldRef.fieldPath: must be metadata.name, metadata.namespace, metadata.uid, metadata.labels or metadata.annotations"),
    ("spec/volumes/0", {"name": "v", "downwardAPI": {"items": [{"path": "a", "resourceFieldRef": {"resource": "limits.cpu"}}]}}, "spec.volumes[0].downwardAPI.items[0].resourceFieldRef.containerName: is required in a volume"),
    # placement and names
    ("spec/tolerations/0", {}, "spec.tolerations[0].operator: must be Exists when key is empty"),
    ("spec/tolerations/0", {"key": "a", "operator": "Exists", "value": "b"}, "spec.tolerations[0].value: must be empty when operator is Exists"),
    ("spec/tolerations/0", {"key": "a", "effect": "NoSchedule", "tolerationSeconds": 3}, "spec.tolerations[0].effect: must be NoExecute when tolerationSeconds is set"),
    ("spec/tolerations/0", {"key": "a", "operator": "Gt"}, f"spec.tolerations[0]: operator Gt: {NOT_YET} (--lenient runs without this toleration)"),
    ("spec/hostAliases/0", {"ip": "x"}, "spec.hostAliases[0].ip: 'x' is not an IP address"),
    ("spec/dnsPolicy", "None", "spec.dnsConfig.nameservers: must name one server at least when dnsPolicy is None"),
    ("spec/dnsConfig", {"nameservers": ["1.1.1.1"] * 4}, "spec.dnsConfig.nameservers: may name three servers at most"),
    ("spec/dnsConfig", {"searches": ["a b"]}, "spec.dnsConfig.searches[0]: must be a domain such as example.com"),
    ("spec/dnsConfig", {"options": [{"name": "a\nnameserver 1.2.3.4"}]}, "spec.dnsConfig.options[0]: must be printable characters without spaces"),
    ("spec", {"hostPID": True, "shareProcessNamespace": True, "containers": [{"name": "c", "image": "i"}]}, "spec.shareProcessNamespace: may not be true when hostPID is true"),
    ("spec/activeDeadlineSeconds", 0, "spec.activeDeadlineSeconds: must be at least 1"),
    ("spec/serviceAccountName", "robot", f"spec.serviceAccountName: {NOT_YET} (--lenient runs without it)"),
    ("spec/readinessGates", [], f"spec.readinessGates: {NOT_YET} (--lenient runs without it)"),
    ("spec/schedulingGates", [{"name": "a b"}], "spec.schedulingGates[0].name: key 'a b' must be 1–63 letters, digits, '-', '_' or '.' (after an optional prefix and '/'), and begin and end with a letter or digit"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "message"), POD_TABLE, ids=[f"{row[0]}-{n}" for n, row in enumerate(POD_TABLE)]
)
def test_bad_pod(path: str, value: Any, message: str) -> None:
    assert problems_of(json.dumps(with_field(POD, path, value))) == [f"a.yaml:1: {message}"]


DEPLOYMENT_TABLE: list[tuple[str, Any, str]] = [
    ("spec/replicas", 100_001, "spec.replicas: must be at most 100000"),
    ("spec/replica", 3, "spec.replica: unknown field 'replica': did you mean 'replicas'?"),
    ("spec/replicas", -1, "spec.replicas: must be at least 0"),
    ("spec/replicas", "3", "spec.replicas: must be a whole number, not a text"),
    ("spec/containers", [], "spec.containers: unknown field 'containers' here: it belongs to spec.template.spec"),
    ("spec/selector", DELETED, "spec.selector: is required"),
    ("spec/selector", {}, "spec.selector: must select something: repeat the labels of the template as matchLabels"),
    ("spec/selector/matchLabels", {"app": "b"}, "spec.template.metadata.labels: do not match spec.selector: it must select the pods made here"),
    ("spec/selector/matchExpressions", [{"key": "app", "operator": "Gt"}], "spec.selector.matchExpressions[0].operator: must be In, NotIn, Exists or DoesNotExist, not 'Gt'"),
    ("spec/selector/matchExpressions", [{"key": "app", "operator": "In"}], "spec.selector.matchExpressions[0].values: must not be empty for In"),
    ("spec/selector/matchExpressions", [{"key": "app", "operator": "Exists", "values": ["a"]}], "spec.selector.matchExpressions[0].values: must be empty for Exists"),
    ("spec/template/spec/restartPolicy", "Never", "spec.template.spec.restartPolicy: must be Always here, not Never: these pods run for ever"),
    ("spec/template/spec/activeDeadlineSeconds", 5, "spec.template.spec.activeDeadlineSeconds: may not be set here: these pods run for ever"),
    ("spec/strategy", {"type": "Recreate", "rollingUpdate": {}}, "spec.strategy.rollingUpdate: may not be set when type is Recreate"),
    ("spec/strategy", {"type": "Rolling"}, "spec.strategy.type: must be RollingUpdate or Recreate, not 'Rolling': did you mean RollingUpdate?"),
    ("spec/strategy/rollingUpdate", {"maxSurge": 0, "maxUnavailable": "0%"}, "spec.strategy.rollingUpdate.maxUnavailable: may not be 0 when maxSurge is 0 too: nothing could ever be replaced"),
    ("spec/strategy/rollingUpdate", {"maxUnavailable": "101%"}, "spec.strategy.rollingUpdate.maxUnavailable: may not be more than 100%, not 101%"),
    ("spec/strategy/rollingUpdate", {"maxSurge": "25"}, "spec.strategy.rollingUpdate.maxSurge: must be a number such as 1 or a percentage such as \"25%\""),
    ("spec/strategy/rollingUpdate", {"maxSurge": -1}, "spec.strategy.rollingUpdate.maxSurge: must be 0–2147483647 or a percentage"),
    ("spec/strategy/rollingUpdate", {"maxSurge": 0.25}, "spec.strategy.rollingUpdate.maxSurge: must be a number such as 1 or a percentage such as \"25%\""),
    ("spec/minReadySeconds", 600, "spec.progressDeadlineSeconds: must be greater than minReadySeconds (600), not 600"),
    ("apiVersion", "extensions/v1beta1", "apiVersion: must be apps/v1 for Deployment, not 'extensions/v1beta1'"),
    ("apiVersion", DELETED, "apiVersion: is required"),
    ("kind", "deployment", "kind: 'deployment' is not a kind: did you mean Deployment?"),
    ("kind", "Xyz", "kind: 'Xyz' is not a kind: Namespace, Pod, ReplicaSet, Deployment, StatefulSet, DaemonSet, Job, CronJob, ConfigMap, Secret, ResourceQuota, LimitRange, PriorityClass, PodDisruptionBudget, PersistentVolumeClaim, HorizontalPodAutoscaler"),
    ("kind", "ReplicationController", f"kind: ReplicationController: {NOT_YET} (--lenient leaves this object out)"),
    ("kind", 3, "kind: must be a text, not a number"),
    ("apiVersion", "acme.example/v1", "kind: Deployment of 'acme.example/v1' is a custom resource: not supported (--lenient leaves it out)"),
    ("metadata/finalizers", ["x"], f"metadata.finalizers: {NOT_YET} (--lenient runs without it)"),
    ("spec/template/metadata/labels/app", "x y", f"spec.template.metadata.labels.app: value 'x y' {VALUE_RULE}"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "message"), DEPLOYMENT_TABLE, ids=[f"{row[0]}-{n}" for n, row in enumerate(DEPLOYMENT_TABLE)]
)
def test_bad_deployment(path: str, value: Any, message: str) -> None:
    assert problems_of(json.dumps(with_field(DEPLOYMENT, path, value))) == [f"a.yaml:1: {message}"]


@pytest.mark.parametrize("lenient", [False, True])
def test_names_are_not_made_up(lenient: bool) -> None:
    """kubectl apply refuses it as well: it could not find the object again."""
    nameless = with_field(with_field(DEPLOYMENT, "metadata/name", DELETED), "metadata/generateName", "web-")
    assert problems_of(json.dumps(nameless), lenient=lenient) == [
        "a.yaml:1: metadata.generateName: makes no name here: apply finds an object again by its metadata.name"
    ]


CONFIG_TABLE: list[tuple[dict[str, Any], str, Any, str]] = [
    (CONFIG_MAP, "data/a b", "x", "data.a b: key 'a b' must be 1–253 letters, digits, '-', '_' or '.', and not '.' or begin with '..'"),
    (CONFIG_MAP, "data", {"..": "x"}, "data...: key '..' must be 1–253 letters, digits, '-', '_' or '.', and not '.' or begin with '..'"),
    (CONFIG_MAP, "data", {"a": {}}, "data.a: must be a text, not a mapping"),
    (CONFIG_MAP, "data", {"a": "x" * 1048577}, "data: is larger than 1 MiB together"),
    (CONFIG_MAP, "binaryData", {"a": "x"}, "binaryData.a: is not base64"),
    (CONFIG_MAP, "immutable", "no", "immutable: must be true or false, not 'no'"),
    (CONFIG_MAP, "spec", {}, "spec: unknown field 'spec': there are apiVersion, binaryData, data, immutable, kind, metadata"),
    (SECRET, "data", {"a": "hunter2"}, "data.a: is not base64; plain text belongs in stringData"),
    (SECRET, "data", {"a": "***"}, "data.a: *** stands for a value that is not shown: write the value itself"),
    (SECRET, "data", {"a": ["hunter2"]}, "data.a: must be a text, not a list"),
    (SECRET, "type", "kubernetes.io/basic-auth", "data: must hold username or password for type kubernetes.io/basic-auth"),
    (SECRET, "type", "kubernetes.io/tls", "data: must hold tls.crt for type kubernetes.io/tls"),
    (SECRET, "type", "kubernetes.io/dockerconfigjson", "data: must hold .dockerconfigjson for type kubernetes.io/dockerconfigjson"),
]  # fmt: skip


@pytest.mark.parametrize(("base", "path", "value", "message"), CONFIG_TABLE)
def test_bad_configuration(base: dict[str, Any], path: str, value: Any, message: str) -> None:
    assert problems_of(json.dumps(with_field(base, path, value)))[0] == f"a.yaml:1: {message}"


@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_a_pod_of_more_containers_than_an_agent_takes_is_refused_with_its_manifest(kind: str) -> None:
    own = POD["spec"]["containers"]
    others = [{"name": f"c{number}", "image": "i:1"} for number in range(CONTAINERS_MAX - len(own))]
    most = with_field(POD, f"spec/{kind}", own + others if kind == "containers" else others)
    load(json.dumps(most), "a.yaml")
    [problem] = problems_of(
        json.dumps(with_field(most, f"spec/{kind}/{len(most['spec'][kind])}", own[0] | {"name": "z"}))
    )
    assert problem.endswith(f"spec.{kind}: may be 64 at most, init containers included, not 65")


JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "a"},
    "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}},
}
RULES = "spec/podFailurePolicy/rules"
SHOWN_RULES = "spec.podFailurePolicy.rules"
COUNT_1 = {"action": "Count", "onExitCodes": {"operator": "In", "values": [1]}}
JOB_TABLE: list[tuple[str, Any, str]] = [
    (RULES, [COUNT_1] * 21, f"{SHOWN_RULES}: must be at most 20 rules"),
    (f"{RULES}/0", {"action": "Count", "onExitCodes": {"operator": "In", "values": [3, 1]}}, f"{SHOWN_RULES}[0].onExitCodes.values: must be in rising order"),
    (f"{RULES}/0", {"action": "Count", "onExitCodes": {"operator": "In", "values": [*range(1, 257)]}}, f"{SHOWN_RULES}[0].onExitCodes.values: must be at most 255 numbers"),
    (f"{RULES}/0", {"action": "Count", "onPodConditions": [{"type": "bad type"}]}, f"{SHOWN_RULES}[0].onPodConditions[0].type: key 'bad type' {KEY_RULE}"),
    (f"{RULES}/0", {"action": "Count", "onPodConditions": [{"type": f"T{n}"} for n in range(21)]}, f"{SHOWN_RULES}[0].onPodConditions: must be at most 20 conditions"),
    ("spec", {**JOB["spec"], "completionMode": "Indexed", "completions": 10, "parallelism": 100001}, "spec.parallelism: must be at most 100000"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "message"), JOB_TABLE)
def test_bad_job(path: str, value: Any, message: str) -> None:
    assert problems_of(json.dumps(with_field(JOB, path, value))) == [f"a.yaml:1: {message}"]


@pytest.mark.parametrize("schedule", ["@HOURLY", " @daily", "@daily "])
def test_macros_of_cron_are_written_as_kubernetes_knows_them(schedule: str) -> None:
    spec = {"schedule": schedule, "jobTemplate": {"spec": JOB["spec"]}}
    (problem,) = problems_of(json.dumps({**JOB, "kind": "CronJob", "spec": spec}))
    assert problem.startswith("a.yaml:1: spec.schedule: must have five fields")


def test_the_pods_of_an_indexed_job_have_host_names() -> None:
    indexed = {**JOB["spec"], "completionMode": "Indexed", "completions": 1001}
    for name, wrong in (("a" * 59, True), ("a.b", True), ("a" * 58, False)):
        text = json.dumps({**JOB, "metadata": {"name": name}, "spec": indexed})
        if wrong:
            assert problems_of(text) == [
                f"a.yaml:1: metadata.name: its pods have host names: {name}-1000 must be a DNS label"
            ]
        else:
            assert load(text, "a.yaml").manifests
    assert load(json.dumps({**JOB, "metadata": {"name": "a.b"}}), "a.yaml").manifests


def test_a_quota_with_scopes_counts_processor_and_memory_only() -> None:
    hard = {"requests.cpu": "1", "limits.memory": "1Gi", "limits.ephemeral-storage": "1Gi"}
    spec = {"hard": hard, "scopes": ["NotBestEffort"]}
    text = json.dumps({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "a"}, "spec": spec})
    assert problems_of(text) == ["a.yaml:1: spec.hard.limits.ephemeral-storage: cannot be counted with these scopes"]


NOTHING = "is nothing that a quota counts: pods, requests.cpu, limits.memory, count/jobs.batch, …"


@pytest.mark.parametrize(
    ("name", "amount", "message"),
    [
        ("pods", "1.5", "must be a whole number, not 1.5"),
        ("count/jobs.batch", "500m", "must be a whole number, not 500m"),
        ("persistentvolumeclaims", "1.5", "must be a whole number, not 1.5"),
        ("limits.foo", "1", NOTHING),
        ("requests.foo", "1", NOTHING),
        ("count/", "1", NOTHING),
        ("requests.cpu", "1.5", ""),
        ("requests.nvidia.com/gpu", "1", ""),
        ("requests.hugepages-2Mi", "1Gi", ""),
        ("count/widgets.example.com", "3", ""),
        ("pods", "1k", ""),
    ],
)
def test_what_a_quota_counts(name: str, amount: str, message: str) -> None:
    text = json.dumps(
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "a"}, "spec": {"hard": {name: amount}}}
    )
    if message:
        assert problems_of(text) == [f"a.yaml:1: spec.hard.{name}: {message}"]
    else:
        assert load(text, "a.yaml").warnings == ()


def test_pull_credentials_must_be_json() -> None:
    secret = {**SECRET, "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "user:hunter2"}}
    assert problems_of(json.dumps(secret)) == ["a.yaml:1: stringData..dockerconfigjson: must hold a JSON object"]


def test_a_secret_volume_by_name_is_told_secret_name() -> None:
    pod = with_field(POD, "spec/volumes/0", {"name": "v", "secret": {"name": "a"}})
    assert problems_of(json.dumps(pod)) == [
        "a.yaml:1: spec.volumes[0].secret.name: unknown field 'name': did you mean 'secretName'?",
        "a.yaml:1: spec.volumes[0].secret.secretName: is required",
    ]


def test_the_bases_of_these_tables_are_good() -> None:
    for base in (POD, DEPLOYMENT, CONFIG_MAP, SECRET):
        assert len(load(json.dumps(base), "a.yaml").manifests) == 1


@pytest.mark.parametrize("text", ["3", "[]", "x", "- a\n- b"])
def test_what_is_no_object_is_told_so(text: str) -> None:
    (problem,) = problems_of(text)
    assert problem.startswith("a.yaml:1: must be an object with apiVersion, kind and metadata, not ")


def test_messages_escape_and_shorten_what_the_file_says() -> None:
    text = json.dumps(with_field(POD, "metadata/labels", {"\x1b[2J\u202e": "x", "k" * 200: "y"}), ensure_ascii=True)
    first, second = problems_of(text)
    assert first.startswith("a.yaml:1: metadata.labels.'\\x1b[2J\\u202e': key '\\x1b[2J\\u202e' must be")
    assert second.startswith(f"a.yaml:1: metadata.labels.'{'k' * 80}'…: key '{'k' * 80}'… must be")
    twice = [{"name": "v", "mountPath": "/" + "m" * 10_000}] * 2
    spec = {"volumes": [{"name": "v"}], "containers": [{"name": "c", "image": "i", "volumeMounts": twice}]}
    assert max(map(len, problems_of(json.dumps(with_field(POD, "spec", spec))))) < 250


def test_a_hostile_file_of_unknown_fields_gets_a_bounded_number_of_hints() -> None:
    fields = {f"replicaz{n}": 1 for n in range(9000)}
    problems = problems_of(json.dumps({**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], **fields}}))
    assert len(problems) == 9000
    assert sum("did you mean" in problem for problem in problems) == 50


def test_many_objects_make_no_long_hint() -> None:
    text = "---\n".join(
        json.dumps({**CONFIG_MAP, "metadata": {"name": f"c{n}", "finalizers": ["x"]}}) + "\n" for n in range(30)
    )
    with pytest.raises(ManifestError) as refused:
        load(text, "a.yaml")
    assert refused.value.runnable == tuple(f"ConfigMap c{n}" for n in range(30))
    assert refused.value.hint.endswith("ConfigMap c18, ConfigMap c19, 10 more and leave out the rest")


def test_reading_stops_between_documents_after_1000_problems() -> None:
    bad = json.dumps({**CONFIG_MAP, "immutable": 3})
    problems = problems_of("\n---\n".join([bad] * 3000))
    assert len(problems) == 1002
    assert problems[-1] == "a.yaml: too many problems: the rest was not read"
