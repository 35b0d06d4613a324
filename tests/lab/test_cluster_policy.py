"""What namespaces allow, content that restarts pods, and fields whose effect only the host shows: on real hosts."""

# ruff: noqa: E501  (a pod is a line)
from __future__ import annotations

import json
from typing import Any

from tests.lab.cluster import Cluster, Object, Running, config_map, deployment, secret, shell, single, wait_for

SECURE: Object = {"allowPrivilegeEscalation": False, "runAsUser": 1000, "capabilities": {"drop": ["ALL"]}}
SECURE_POD: Object = {"securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}}


def labelled(namespace: str, **labels: str) -> str:
    """A namespace with labels of Pod Security."""
    named = {f"pod-security.kubernetes.io/{key}": value for key, value in labels.items()}
    return json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": named}})


def rule(kind: str, name: str, **spec: Any) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def find(cluster: Cluster, namespace: str, pod: str) -> Running:
    (found,) = [one for one in cluster.running(namespace) if one.pod == pod]
    return found


def test_a_level_of_pod_security_refuses_pods_and_warns_of_workloads(cluster: Cluster, ns: str) -> None:
    cluster.run("apply", "-f", "-", stdin=labelled(ns, enforce="restricted"))
    text = json.dumps({**single("loose"), "metadata": {"name": "loose", "namespace": ns}})
    said = cluster.run("apply", "-f", "-", stdin=text, expect=1)
    assert 'violates PodSecurity "restricted:latest"' in said
    web = deployment("web", 1)
    web["metadata"]["namespace"] = ns
    said = cluster.run("apply", "-f", "-", "--timeout", "10s", stdin=json.dumps(web), expect=3)
    assert "warning: deployment " in said
    assert "FailedCreate: violates PodSecurity" in said
    assert not cluster.pods(ns)
    assert "FailedCreate" in cluster.run("describe", "deployment/web", "-n", ns)
    tight = deployment("web", 1, container={"securityContext": SECURE}, pod=SECURE_POD)
    tight["metadata"]["namespace"] = ns
    cluster.run("apply", "-f", "-", stdin=json.dumps(tight))
    (one,) = cluster.running(ns)
    assert cluster.inside(one, "id -u") == "1000"


def test_a_quota_stops_a_deployment_and_lets_it_go_on_once_it_is_raised(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, rule("ResourceQuota", "most", hard={"pods": "2"}))
    said = cluster.apply(ns, deployment("web", 3), flags=["--timeout", "10s"], expect=3)
    assert "exceeded quota: most, requested: pods=1, used: pods=2, limited: pods=2" in said
    assert len(cluster.running(ns)) == 2
    assert "exceeded quota" in cluster.apply(ns, single("one"), expect=1)
    assert "pods       2      2" in cluster.run("describe", "quota/most", "-n", ns)
    cluster.apply(ns, rule("ResourceQuota", "most", hard={"pods": "3"}))
    cluster.run("rollout", "status", "deployment/web", "-n", ns)
    assert len(cluster.running(ns)) == 3


def test_a_limit_range_gives_containers_what_they_do_not_say(cluster: Cluster, ns: str) -> None:
    each = {"type": "Container", "default": {"memory": "64Mi"}, "max": {"memory": "128Mi"}}
    cluster.apply(ns, rule("LimitRange", "each", limits=[each]))
    script = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
    cluster.apply(ns, single("silent", container=shell("sleep 1000")))
    assert int(cluster.inside(find(cluster, ns, "silent"), script)) == 64 * 2**20
    much = single("much", container=shell("sleep 1000", resources={"limits": {"memory": "1Gi"}}))
    assert "at most 128Mi per Container is allowed" in cluster.apply(ns, much, expect=1)


def test_a_limit_range_refuses_what_is_too_little_or_stretched_too_far_and_says_what_is_asked_for(
    cluster: Cluster, ns: str
) -> None:
    each = {
        "type": "Container",
        "min": {"memory": "16Mi"},
        "defaultRequest": {"memory": "32Mi", "cpu": "100m"},
        "maxLimitRequestRatio": {"memory": "2"},
    }
    cluster.apply(ns, rule("LimitRange", "each", limits=[each]))

    def asking(name: str, request: str, limit: str) -> Object:
        memory = {"requests": {"memory": request}, "limits": {"memory": limit}}
        return single(name, container=shell("sleep 1000", resources=memory))

    said = cluster.apply(ns, asking("little", "8Mi", "16Mi"), expect=1)
    assert "at least 16Mi" in said
    said = cluster.apply(ns, asking("stretched", "16Mi", "33Mi"), expect=1)
    assert "2 times at most is allowed" in said
    cluster.apply(
        ns,
        asking("even", "20Mi", "40Mi"),
        single("silent", container=shell("sleep 1000", resources={"limits": {"memory": "64Mi"}})),
    )
    script = "cat /sys/fs/cgroup/cpu.weight 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.shares"
    assert cluster.inside(find(cluster, ns, "silent"), script) in ("102", "4"), "100m, as a share or as a weight"


def test_a_quota_with_scopes_counts_only_pods_of_that_kind(cluster: Cluster, ns: str) -> None:
    chosen = {"scopeName": "PriorityClass", "operator": "In", "values": ["system-node-critical"]}
    cluster.apply(
        ns,
        rule("ResourceQuota", "no-best-effort", hard={"pods": "0"}, scopes=["BestEffort"]),
        rule("ResourceQuota", "not-critical", hard={"pods": "0"}, scopeSelector={"matchExpressions": [chosen]}),
        rule(
            "ResourceQuota",
            "with-a-deadline",
            hard={"pods": "0"},
            scopeSelector={"matchExpressions": [{"scopeName": "Terminating", "operator": "Exists"}]},
        ),
    )
    asks = {"resources": {"requests": {"memory": "16Mi"}}}

    def pod(name: str, container: Object, **more: Any) -> Object:
        return single(name, container=shell("sleep 1000", **container), pod=more)

    assert "no-best-effort" in cluster.apply(ns, pod("best-effort", {}), expect=1)
    said = cluster.apply(ns, pod("critical", asks, priorityClassName="system-node-critical"), expect=1)
    assert "not-critical" in said
    assert "with-a-deadline" in cluster.apply(ns, pod("hasty", asks, activeDeadlineSeconds=1000), expect=1)
    cluster.apply(ns, pod("plain", asks), pod("other", asks, priorityClassName="system-cluster-critical"))
    assert [one.pod for one in cluster.running(ns)] == ["other", "plain"]


def test_a_drain_takes_what_is_not_healthy_past_its_budget_only_where_that_says_so(cluster: Cluster, ns: str) -> None:
    def budget(name: str, policy: str) -> Object:
        spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": name}}, "unhealthyPodEvictionPolicy": policy}
        return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}, "spec": spec}

    pinned = {"nodeSelector": {"kubernetes.io/hostname": "node2"}, "terminationGracePeriodSeconds": 0}
    cluster.apply(
        ns,
        budget("careful", "IfHealthyBudget"),
        budget("careless", "AlwaysAllow"),
        *(deployment(name, 1, "bad", pod=pinned) for name in ("careful", "careless")),
        flags=["--no-wait"],
    )
    cluster.wait_running(ns, 2)
    try:
        said = cluster.run("node", "drain", "node2", "--timeout", "8s", expect=3)
        assert "waits for its disruption budget" in said
        wait_for(lambda: len(cluster.running(ns)) == 1, "the pod of the careless budget to go")
        assert [one.pod.partition("-")[0] for one in cluster.running(ns)] == ["careful"]
    finally:
        cluster.run("node", "uncordon", "node2")


def test_changed_content_restarts_who_asked_for_it_and_immutable_content_does_not_change(
    cluster: Cluster, ns: str
) -> None:
    reads = {"env": [{"name": "WORD", "valueFrom": {"configMapKeyRef": {"name": "words", "key": "word"}}}]}
    asking, plain = deployment("asking", 1, container=reads), deployment("plain", 1, container=reads)
    asking["metadata"]["annotations"] = {"sshoal.dev/restart-on-config-change": "true"}
    cluster.apply(ns, config_map("words", word="one"), asking, plain)
    before = {one.pod.partition("-")[0]: one.id for one in cluster.running(ns)}
    cluster.apply(ns, {**config_map("words", word="two"), "immutable": True})
    cluster.run("reconcile", "--settle", "--budget", "60s")
    cluster.run("rollout", "status", "deployment/asking", "-n", ns)
    after = {one.pod.partition("-")[0]: one for one in cluster.running(ns)}
    assert after["plain"].id == before["plain"]
    assert cluster.inside(after["asking"], "echo $WORD") == "two"
    assert "configmap" in cluster.run("events", "-n", ns)
    said = cluster.apply(ns, {**config_map("words", word="three"), "immutable": True}, expect=2)
    assert "configmap words is immutable" in said
    cluster.apply(ns, {**secret("sealed", word="one"), "immutable": True})
    said = cluster.apply(ns, {**secret("sealed", word="two"), "immutable": True}, expect=2)
    assert "secret sealed is immutable" in said


HOSTLY = (
    single("signalled", container=shell("trap 'echo usr1 >/dev/termination-log; exit 0' USR1; while :; do sleep 0.1; done", lifecycle={"stopSignal": "SIGUSR1"}), pod={"restartPolicy": "Never", "activeDeadlineSeconds": 20}),
    single("mounted", container=shell("sleep 1000", volumeMounts=[{"name": "w", "mountPath": "/ro", "readOnly": True}, {"name": "w", "mountPath": "/slave", "mountPropagation": "HostToContainer"}]), pod={"volumes": [{"name": "w", "emptyDir": {}}]}),
    single("rooted", container=shell("sleep 1000", securityContext={"runAsNonRoot": True})),
    single("in-host-ipc", container=shell("sleep 1000"), pod={"hostIPC": True}),
    single("placed", container=shell("sleep 1000"), pod={"nodeName": "node2"}),
    single("quickly", container=shell("trap '' TERM; while :; do sleep 0.1; done", livenessProbe={"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1, "terminationGracePeriodSeconds": 1}), pod={"terminationGracePeriodSeconds": 600}),
    single("absent", container={"image": "localhost/sshoal-test:nowhere", "imagePullPolicy": "Never"}),
    single("filtered", container=shell("sleep 1000", securityContext={"seccompProfile": {"type": "RuntimeDefault"}})),
    single("unfiltered", container=shell("sleep 1000", securityContext={"seccompProfile": {"type": "Unconfined"}})),
    single("headed", container=shell("while :; do nc -l -p 8080 -e sh -c 'while read line; do case $line in *tell-tale*) echo seen >/tmp/seen;; esac; done'; done", livenessProbe={"httpGet": {"port": 8080, "httpHeaders": [{"name": "X-Word", "value": "tell-tale"}]}, "failureThreshold": 1000, "periodSeconds": 1})),
)  # fmt: skip


def test_fields_that_show_in_what_the_host_has(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, *HOSTLY, flags=["--no-wait"])
    with cluster.watching():
        ready = [f"pod/{name}" for name in ("mounted", "in-host-ipc", "placed", "filtered", "unfiltered")]
        cluster.run("wait", *ready, "-n", ns, "--timeout", "120s")
        mounted = find(cluster, ns, "mounted")
        assert cluster.inside(
            mounted, "touch /ro/x 2>/dev/null || echo refused; touch /slave/x && echo made"
        ).split() == [
            "refused",
            "made",
        ]
        lines = [line.split() for line in cluster.inside(mounted, "cat /proc/self/mountinfo").splitlines()]
        tags = {line[4]: line[6] for line in lines if line[4] in ("/ro", "/slave")}
        assert tags["/slave"].startswith("master:")
        assert not tags["/ro"].startswith("master:"), "private, as Kubernetes mounts what says nothing"
        one = find(cluster, ns, "in-host-ipc")
        host = cluster.host(one.host)
        assert host.run(f"readlink /proc/{one.pid}/ns/ipc") == host.run("readlink /proc/1/ns/ipc")
        assert find(cluster, ns, "placed").host == "node2"
        filters = [
            cluster.inside(find(cluster, ns, name), "cat /proc/self/status") for name in ("filtered", "unfiltered")
        ]
        with_filter, without = (int(text.partition("Seccomp_filters:")[2].split()[0]) for text in filters)
        assert with_filter == without + 1
        wait_for(lambda: restarts(cluster, ns, "quickly") > 0, "a kill after the probe's own grace")
        wait_for(
            lambda: waiting(cluster, ns, "absent") == "ErrImageNeverPull", "an image that is not there and not pulled"
        )
        wait_for(lambda: waiting(cluster, ns, "rooted") == "CreateContainerConfigError", "root to be refused")
        wait_for(lambda: last_words(cluster, ns, "signalled") == "usr1", "the signal of the manifest")
        headed = find(cluster, ns, "headed")
        wait_for(lambda: cluster.inside(headed, "cat /tmp/seen 2>/dev/null || true") == "seen", "the header")


def status(cluster: Cluster, namespace: str, pod: str) -> Object:
    found: Object = cluster.pod(namespace, pod)["status"]["containerStatuses"][0]
    return found


def restarts(cluster: Cluster, namespace: str, pod: str) -> int:
    return int(status(cluster, namespace, pod)["restartCount"])


def waiting(cluster: Cluster, namespace: str, pod: str) -> str:
    return str(status(cluster, namespace, pod)["state"].get("waiting", {}).get("reason", ""))


def last_words(cluster: Cluster, namespace: str, pod: str) -> str:
    return str(status(cluster, namespace, pod)["state"].get("terminated", {}).get("message", "")).strip()
