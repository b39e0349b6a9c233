#!/usr/bin/env python3
"""Writes protobuf.json.gz: the numbers, names and types of the fields in Kubernetes' protobuf messages.

usage: protobuf.py K8S_PB OPENAPI > protobuf.json.gz
(K8S_PB is the `src` folder of the crate k8s-pb, which holds Kubernetes' messages as prost types; OPENAPI a folder with
Kubernetes' published OpenAPI v3 documents, for the fields' names in JSON.)

The answer is {"kinds": {"v1/Pod": "core.v1.Pod"}, "messages": {"core.v1.Pod": {"1": ["metadata", "meta.v1.ObjectMeta"]}}}.
A type is `s` string, `b` bool, `i` integer, `d` double, `y` bytes, or a message; `*` before it a list, `%` a map of it,
`!` a scalar that is written even if it is zero (it is required). A field without a name is merged into its parent.
"""
import gzip
import json
import pathlib
import re
import sys

source, openapi = map(pathlib.Path, sys.argv[1:3])
SCALARS = {"string": "s", "bool": "b", "int32": "i", "int64": "i", "double": "d", "bytes": "y"}
# The pointers to scalars whose zero is not the same as no value.
POINTERS = set("""
automountServiceAccountToken enableServiceLinks shareProcessNamespace hostUsers setHostnameAsFQDN runAsNonRoot
allowPrivilegeEscalation privileged readOnlyRootFilesystem optional controller blockOwnerDeletion
allocateLoadBalancerNodePorts suspend immutable attachRequired podInfoOnMount allowVolumeExpansion storageCapacity
requiresRepublish ready serving terminating manualSelector replicas revisionHistoryLimit progressDeadlineSeconds
terminationGracePeriodSeconds activeDeadlineSeconds completions parallelism backoffLimit ttlSecondsAfterFinished priority
runAsUser runAsGroup fsGroup defaultMode mode tolerationSeconds expirationSeconds partition startingDeadlineSeconds
successfulJobsHistoryLimit failedJobsHistoryLimit minReplicas gracePeriodSeconds deletionGracePeriodSeconds
stabilizationWindowSeconds leaseTransitions storageClassName value allowed
""".split())


def plain(name):
    return re.sub(r"[^a-z0-9]", "", name.lower())


schemas, everywhere = {}, {}
for path in openapi.glob("*.json"):
    for name, schema in json.loads(path.read_text()).get("components", {}).get("schemas", {}).items():
        schemas[plain(name)] = schema
        everywhere.update({plain(p): p for p in schema.get("properties", {})})

messages, kinds = {}, {}
for path in source.rglob("mod.rs"):
    package = list(path.parent.relative_to(source).parts)
    if not package or package[-1] in ("api", "pkg"):
        continue
    full = [p.replace("_", "-") if p == "apiextensions_apiserver" else p for p in package]
    short = lambda parts: ".".join(p for p in parts if p not in ("api", "apimachinery", "pkg", "apis", "apiextensions_apiserver"))
    text = path.read_text()
    for struct in re.finditer(r"pub struct (\w+) \{\n(.*?)\n\}", text, re.S):
        name, body = struct.groups()
        schema = schemas.get(plain("io.k8s." + ".".join(full) + "." + name), {})
        properties = schema.get("properties", {})
        required = set(schema.get("required", []))
        names = {plain(p): p for p in properties}
        fields = {}
        body = re.sub(r"^\s*///.*$", "", body, flags=re.M)
        for field in re.finditer(r"#\[prost\(([^\]]*?)\)\]\s+pub (?:r#)?(\w+):\s+(.*?),\s*(?=#\[|$)", body, re.S):
            options, rust, kind = field.groups()
            kind = re.sub(r"\s", "", kind).replace(",>", ">")
            number = re.search(r'tag\s*=\s*"(\d+)"', options).group(1)
            first = re.match(r'(\w+)(?:\s*=\s*"([^"]*)")?', options)

            def resolve(kind):
                kind = re.sub(r"::core::option::Option<|::prost::alloc::(?:vec::Vec|boxed::Box)<|>", "", kind).strip()
                parts = [p for p in kind.split("::") if p]
                where = list(package)
                while parts and parts[0] == "super":
                    where.pop()
                    parts.pop(0)
                if parts and parts[0] == "crate":
                    where, parts = [], parts[1:]
                return short(where + parts[:-1]) + "." + parts[-1]

            if first.group(1) == "btree_map":
                value = first.group(2).split(",")[1].strip()
                code = "%" + (resolve(kind.split(",", 1)[1]) if value == "message" else SCALARS[value])
            else:
                code = resolve(kind) if first.group(1) == "message" else SCALARS[first.group(1)]
                if re.search(r"\brepeated\b", options):
                    code = "*" + code
            if properties:
                json_name = names.get(plain(rust), "")
                # Only embedded messages have no name of their own; all else was removed from the API.
                if not json_name and ("." not in code or code.endswith("Reference") and "LocalObject" not in code):
                    continue
            else:
                parts = rust.strip("_").split("_")
                json_name = everywhere.get(plain(rust), parts[0] + "".join(p.capitalize() for p in parts[1:]))
            if code in ("s", "b", "i", "d") and (json_name in required or json_name in POINTERS):
                code = "!" + code
            fields[number] = [json_name, code]
        messages[short(package) + "." + name] = fields
        for gvk in schema.get("x-kubernetes-group-version-kind", []):
            group = f"{gvk['group']}/" if gvk["group"] else ""
            kinds.setdefault(f"{group}{gvk['version']}/{gvk['kind']}", short(package) + "." + name)

# What became v1 after the crate was made has the fields it had as v1beta1.
for kind, message in list(kinds.items()):
    if "v1beta1/MutatingAdmissionPolicy" in kind:
        kinds.setdefault(kind.replace("v1beta1", "v1"), message)

# Only what the kinds reach.
reached, todo = set(), sorted(set(kinds.values()))
while todo:
    name = todo.pop()
    if name not in reached and name in messages:
        reached.add(name)
        todo += [code.lstrip("*%!") for _, code in messages[name].values() if "." in code]
document = {"kinds": dict(sorted(kinds.items())), "messages": {name: messages[name] for name in sorted(reached)}}
text = json.dumps(document, separators=(",", ":")).encode()
sys.stdout.buffer.write(gzip.compress(text, 9, mtime=0))
