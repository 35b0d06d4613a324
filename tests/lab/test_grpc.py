"""Probes by gRPC's own health protocol, against a server in a container that speaks it."""

from __future__ import annotations

from tests.lab.cluster import Cluster, Object, single, wait_for

PORT = 9090


def served(**container: object) -> Object:
    """A pod that serves grpc.health.v1 on PORT; readiness is asked there."""
    probe = {"grpc": {"port": PORT}, "periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": 1}
    environment = [{"name": "GRPC_PORT", "value": str(PORT)}]
    return single("cart", container={"env": environment, "readinessProbe": probe, **container})


def test_a_pod_is_ready_as_long_as_its_grpc_health_says_serving(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, served())
    wait_for(lambda: is_ready(cluster, ns), "readiness")
    (cart,) = cluster.running(ns)
    cluster.inside(cart, "/www/cgi-bin/set serving=no")
    wait_for(lambda: not is_ready(cluster, ns), "readiness to be lost")
    told = cluster.run("describe", "pod/cart", "-n", ns)
    assert "NOT_SERVING" in told, told
    cluster.inside(cart, "/www/cgi-bin/set serving=yes")
    wait_for(lambda: is_ready(cluster, ns), "readiness to return")
    assert cluster.running(ns) == [cart]


def test_a_container_whose_grpc_health_says_not_serving_is_restarted_and_ready_again(cluster: Cluster, ns: str) -> None:
    probe = {"grpc": {"port": PORT}, "periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": 2}
    cluster.apply(ns, served(livenessProbe=probe))
    (before,) = cluster.running(ns)
    cluster.inside(before, "/www/cgi-bin/set serving=no")
    wait_for(lambda: restarts(cluster, ns) == 1, "the restart")
    wait_for(lambda: is_ready(cluster, ns), "it to be ready again")
    (after,) = cluster.running(ns)
    assert (after.uid, after.attempt) == (before.uid, before.attempt + 1)
    assert "Liveness probe failed: gRPC NOT_SERVING" in cluster.run("describe", "pod/cart", "-n", ns)


def is_ready(cluster: Cluster, ns: str) -> bool:
    conditions = cluster.pod(ns, "cart")["status"]["conditions"]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def restarts(cluster: Cluster, ns: str) -> int:
    return int(cluster.pod(ns, "cart")["status"]["containerStatuses"][0]["restartCount"])
