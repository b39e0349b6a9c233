"""The Python client as its users use it: create, watch, patch, apply, exec, logs, delete."""
import sys
import time

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.stream import stream

config.load_kube_config(sys.argv[1])
core, apps = client.CoreV1Api(), client.AppsV1Api()

# create and read back
core.create_namespaced_config_map("default", client.V1ConfigMap(metadata=client.V1ObjectMeta(name="py"), data={"a": "1"}))
assert core.read_namespaced_config_map("py", "default").data == {"a": "1"}

# watch from the version of a list
version = core.list_namespaced_config_map("default").metadata.resource_version
core.patch_namespaced_config_map("py", "default", {"data": {"b": "2"}})
seen = []
for event in watch.Watch().stream(core.list_namespaced_config_map, "default", resource_version=version, timeout_seconds=10):
    seen.append((event["type"], event["object"].metadata.name, event["object"].data))
    break
assert seen == [("MODIFIED", "py", {"a": "1", "b": "2"})], seen

# a pod: logs and exec
pod = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "py"},
    "spec": {"containers": [{"name": "c", "image": "host", "command": ["sh", "-c", "echo from the pod; exec sleep 600"]}]},
}
utils.create_from_dict(client.ApiClient(), pod)
for event in watch.Watch().stream(core.list_namespaced_pod, "default", field_selector="metadata.name=py", timeout_seconds=60):
    if any(c.type == "Ready" and c.status == "True" for c in event["object"].status.conditions or []):
        break
else:
    raise AssertionError("the pod did not become ready")
assert core.read_namespaced_pod_log("py", "default") == "from the pod\n"
said = stream(core.connect_get_namespaced_pod_exec, "py", "default", command=["echo", "from exec"], stdout=True, stderr=True, stdin=False, tty=False)
assert said == "from exec\n", said

# server-side apply, with a conflict
dyn = dynamic.DynamicClient(client.ApiClient())
deployments = dyn.resources.get(api_version="apps/v1", kind="Deployment")
web = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "py"},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "py"}},
        "template": {
            "metadata": {"labels": {"app": "py"}},
            "spec": {"containers": [{"name": "c", "image": "host", "command": ["sleep", "600"]}]},
        },
    },
}
dyn.server_side_apply(deployments, body=web, name="py", namespace="default", field_manager="one")
scaled = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "py"}, "spec": {"replicas": 2}}
try:
    dyn.server_side_apply(deployments, body=scaled, name="py", namespace="default", field_manager="two")
    raise AssertionError("no conflict")
except dynamic.exceptions.ConflictError:
    pass
dyn.server_side_apply(deployments, body=scaled, name="py", namespace="default", field_manager="two", force_conflicts=True)

# the dynamic client's watch, from the first version on: what is there, a label, and what a field selector lets through
labelled = {"metadata": {"labels": {"seen": "yes"}}}
types, names = [], set()
for event in deployments.watch(namespace="default", field_selector="metadata.name=py", resource_version="0", timeout=60):
    if not types:
        deployments.patch(body=labelled, name="py", namespace="default", content_type="application/merge-patch+json")
    types.append(event["type"])
    names.add(event["object"].metadata.name)
    assert event["raw_object"]["kind"] == "Deployment", event["raw_object"]
    if (event["object"].metadata.labels or {}).get("seen") == "yes":
        break
assert types[0] == "ADDED" and set(types[1:]) == {"MODIFIED"} and names == {"py"}, (types, names)

until = time.time() + 60
while (apps.read_namespaced_deployment("py", "default").status.ready_replicas or 0) != 2:
    assert time.time() < until, apps.read_namespaced_deployment("py", "default").status
    time.sleep(0.2)

# errors are typed
try:
    core.read_namespaced_pod("absent", "default")
    raise AssertionError("found what is absent")
except client.ApiException as error:
    assert error.status == 404 and '"reason":"NotFound"' in error.body.replace(" ", ""), error.body

# delete
apps.delete_namespaced_deployment("py", "default", propagation_policy="Foreground")
core.delete_namespaced_pod("py", "default", grace_period_seconds=1)
core.delete_namespaced_config_map("py", "default")
until = time.time() + 60
while [p for p in core.list_namespaced_pod("default").items]:
    assert time.time() < until, "pods are left"
    time.sleep(0.2)
print("ok")
