"""What Kubernetes has and sshoal lacks: kinds, and fields per type. Data only.

A field that is in these tables is refused by name instead of being called unknown; `--lenient` runs the object without
it. Names are those of the public API reference (core/v1, apps/v1, meta/v1), compared with the OpenAPI
document of Kubernetes 1.37.
"""

from __future__ import annotations

from typing import Any, Final

# To tell an unsupported kind from a misspelt one.
KINDS: Final = frozenset(
    (
        "APIService",
        "Binding",
        "CertificateSigningRequest",
        "ClusterRole",
        "ClusterRoleBinding",
        "ClusterTrustBundle",
        "ComponentStatus",
        "CompositePodGroup",
        "ControllerRevision",
        "CSIDriver",
        "CSINode",
        "CSIStorageCapacity",
        "CustomResourceDefinition",
        "DeviceClass",
        "DeviceTaintRule",
        "Endpoints",
        "EndpointSlice",
        "Event",
        "EvictionRequest",
        "FlowSchema",
        "Ingress",
        "IngressClass",
        "IPAddress",
        "Lease",
        "LeaseCandidate",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
        "MutatingWebhookConfiguration",
        "NetworkPolicy",
        "Node",
        "PersistentVolume",
        "PodCertificateRequest",
        "PodGroup",
        "PodTemplate",
        "PriorityLevelConfiguration",
        "ReplicationController",
        "ResourceClaim",
        "ResourceClaimTemplate",
        "ResourceSlice",
        "Role",
        "RoleBinding",
        "RuntimeClass",
        "Service",
        "ServiceAccount",
        "ServiceCIDR",
        "StorageClass",
        "StorageVersionMigration",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
        "VolumeAttachment",
        "VolumeAttributesClass",
        "Workload",
    )
)

NEVER: Final = object()  # no value of the field is without meaning here
MOOT: Final = object()  # every value is: it is about something that never happens here
NAMED: Final = object()  # it says nothing beside a name, and makes none where that is missing
WHOLE: Final = object()  # of a value: what holds the field says nothing without it, and is left out as a whole
RUINS: Final = object()  # nor can the object run without it: leaving it out would change what it does to its data

# Type → field → the value with which the field says nothing: what happens here anyway.
# With that value it is left out without a word; `kubectl get -o yaml` is full of them.
FIELDS: Final[dict[str, dict[str, Any]]] = {
    "ObjectMeta": {
        "generateName": NAMED,
        "finalizers": NEVER,
    },
    "TemplateMeta": dict.fromkeys(
        (
            "creationTimestamp",
            "deletionGracePeriodSeconds",
            "deletionTimestamp",
            "finalizers",
            "generateName",
            "generation",
            "managedFields",
            "ownerReferences",
            "resourceVersion",
            "selfLink",
            "uid",
        ),
        NEVER,
    ),
    "PersistentVolumeClaimSpec": {
        "dataSource": RUINS,
        "dataSourceRef": RUINS,
        "selector": RUINS,
        "volumeAttributesClassName": NEVER,
    },
    "PersistentVolumeClaimTemplate": {"status": {"phase": "Pending"}},
    "ClaimTemplateMeta": dict.fromkeys(
        (
            "creationTimestamp",
            "finalizers",
            "generateName",
            "ownerReferences",
            "uid",
        ),
        NEVER,
    ),
    "JobSpec": {
        "managedBy": "kubernetes.io/job-controller",
        "manualSelector": False,
        "selector": NEVER,
    },
    "PodSpec": {
        "automountServiceAccountToken": False,
        "ephemeralContainers": NEVER,
        "evictionResponders": NEVER,
        "hostUsers": True,
        "hostnameOverride": NEVER,
        "os": {"name": "linux"},
        "overhead": NEVER,
        "priority": 0,
        "readinessGates": NEVER,
        "resourceClaims": NEVER,
        "resources": {},
        "runtimeClassName": NEVER,
        "schedulerName": "default-scheduler",
        "schedulingGroup": NEVER,
        "serviceAccount": "default",
        "serviceAccountName": "default",
    },
    "Container": {
        "resizePolicy": MOOT,  # of changes to a running pod's resources; here they make new pods
        "restartPolicyRules": NEVER,
        "stdinOnce": MOOT,  # of what happens after `attach`
        "volumeDevices": RUINS,
    },
    "EnvVarSource": {"fileKeyRef": RUINS},
    "ResourceRequirements": {"claims": NEVER},
    "SecurityContext": {
        "appArmorProfile": {"type": "RuntimeDefault"},
        "procMount": "Default",
        "seLinuxOptions": NEVER,
        "windowsOptions": NEVER,
    },
    "PodSecurityContext": {
        "appArmorProfile": {"type": "RuntimeDefault"},
        "seLinuxChangePolicy": NEVER,
        "seLinuxOptions": NEVER,
        "supplementalGroupsPolicy": "Merge",
        "windowsOptions": NEVER,
    },
    "SeccompProfile": {"localhostProfile": NEVER},
    "Volume": dict.fromkeys(
        (
            "awsElasticBlockStore",
            "azureDisk",
            "azureFile",
            "cephfs",
            "cinder",
            "csi",
            "ephemeral",
            "fc",
            "flexVolume",
            "flocker",
            "gcePersistentDisk",
            "gitRepo",
            "glusterfs",
            "image",
            "iscsi",
            "nfs",
            "photonPersistentDisk",
            "portworxVolume",
            "quobyte",
            "rbd",
            "scaleIO",
            "storageos",
            "vsphereVolume",
        ),
        RUINS,
    ),
    "VolumeProjection": dict.fromkeys(("clusterTrustBundle", "podCertificate", "serviceAccountToken"), RUINS),
    "HTTPGetAction": {"protocol": NEVER},
    "GRPCAction": {"mode": NEVER},
    "KeyToPath": {"user": NEVER},
    "ConfigMapVolumeSource": {"defaultUser": NEVER},
    "SecretVolumeSource": {"defaultUser": NEVER},
    "EmptyDirVolumeSource": {"mode": NEVER},
    "DownwardAPIVolumeFile": {"user": NEVER},
    "DownwardAPIVolumeSource": {"defaultUser": NEVER},
    "ProjectedVolumeSource": {"defaultUser": NEVER},
    "VolumeMount": {
        "bindMountOptions": NEVER,
        "recursiveReadOnly": "Disabled",
    },
}
FIELDS["MetricSpec"] = dict.fromkeys(("external", "object", "pods"), RUINS)
FIELDS["MetricTarget"] = {"value": RUINS}
FIELDS["ClaimMeta"] = {**FIELDS["ObjectMeta"], "finalizers": ["kubernetes.io/pvc-protection"]}
FIELDS["ClusterObjectMeta"] = FIELDS["PriorityClassMeta"] = FIELDS["ObjectMeta"]

# Type → field → (what is left out, values that Kubernetes knows and sshoal doesn't).
VALUES: Final[dict[str, dict[str, tuple[Any, tuple[str, ...]]]]] = {
    "SeccompProfile": {"type": (WHOLE, ("Localhost",))},
    "EmptyDirVolumeSource": {"medium": (NEVER, ("HugePages", "HugePages-2Mi", "HugePages-1Gi"))},
    "Toleration": {"operator": (WHOLE, ("Lt", "Gt"))},
    "MetricSpec": {"type": (RUINS, ("External", "Object", "Pods"))},
    "MetricTarget": {"type": (RUINS, ("Value",))},
    "PersistentVolumeClaimSpec": {"volumeMode": (RUINS, ("Block",))},
    "Container": {"restartPolicy": (NEVER, ("Never", "OnFailure"))},  # of one container among others
    "ResourceQuotaSpec": {"scopes": (RUINS, ("VolumeAttributesClass",))},  # without it the quota would count more
    "ScopeRequirement": {"scopeName": (RUINS, ("VolumeAttributesClass",))},
}

# What the API server writes into an object. It describes another cluster, so it is left out with one note per object.
SERVER_METADATA: Final = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
)
SERVER_JOB_LABELS: Final = (
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "controller-uid",
    "job-name",
)
SERVER_ANNOTATIONS: Final = (
    "autoscaling.alpha.kubernetes.io/conditions",
    "autoscaling.alpha.kubernetes.io/current-metrics",
    "batch.kubernetes.io/job-tracking",
    "deprecated.daemonset.template.generation",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deployment.kubernetes.io/revision",
    "deployment.kubernetes.io/revision-history",
    "kubectl.kubernetes.io/last-applied-configuration",
)
# Of a claim that is bound: they name its volume, and who made it.
SERVER_CLAIM_ANNOTATIONS: Final = (
    "pv.kubernetes.io/",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/",
)
