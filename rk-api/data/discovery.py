#!/usr/bin/env python3
"""Writes discovery.json, the built-in resources that are served by default, from a folder of Kubernetes' published discovery documents;
or discovery-optional.json, those that are served if they are asked for.

usage: discovery.py FOLDER > discovery.json
       discovery.py FOLDER optional > discovery-optional.json
(FOLDER holds api__v1.json and apis__GROUP__VERSION.json: the APIResourceLists of one release.)
"""
import json
import pathlib
import sys

# In the order in which `kubectl api-resources` and the aggregated document show them. Versions below v1 are not among them: they are off by
# default in Kubernetes too (KEP-3136), and the documents have them because they tell of a server with all of them on.
GROUP_VERSIONS = [
    "v1", "apiregistration.k8s.io/v1", "apps/v1", "events.k8s.io/v1", "authentication.k8s.io/v1", "authorization.k8s.io/v1", "autoscaling/v2",
    "autoscaling/v1", "batch/v1", "certificates.k8s.io/v1", "networking.k8s.io/v1", "policy/v1",
    "rbac.authorization.k8s.io/v1", "storage.k8s.io/v1", "admissionregistration.k8s.io/v1", "apiextensions.k8s.io/v1",
    "scheduling.k8s.io/v1", "coordination.k8s.io/v1", "node.k8s.io/v1", "discovery.k8s.io/v1",
    "resource.k8s.io/v1", "flowcontrol.apiserver.k8s.io/v1",
]

# Versions below v1 that this server has rules for.
OPTIONAL = ["scheduling.k8s.io/v1alpha2"]

folder = pathlib.Path(sys.argv[1])
rows = []
for gv in OPTIONAL if "optional" in sys.argv[2:] else GROUP_VERSIONS:
    group, _, version = gv.rpartition("/")
    name = f"apis__{group}__{version}.json" if group else f"api__{version}.json"
    listed = json.loads((folder / name).read_text())["resources"]
    for resource in (r for r in listed if "/" not in r["name"]):
        row = {
            "group": group, "version": version, "kind": resource["kind"], "plural": resource["name"],
            "singular": resource["singularName"], "namespaced": resource["namespaced"], "verbs": resource["verbs"],
        }
        for field in ("shortNames", "categories", "storageVersionHash"):
            if resource.get(field):
                row[field] = resource[field]
        subresources = [
            {
                "name": s["name"].split("/")[1], "kind": s["kind"], "group": s.get("group", ""),
                "version": s.get("version", ""), "verbs": s["verbs"],
            }
            for s in listed if s["name"].startswith(resource["name"] + "/")
        ]
        if subresources:
            row["subresources"] = subresources
        rows.append(row)
print("[")
print(",\n".join(json.dumps(row, separators=(",", ":")) for row in rows))
print("]")
