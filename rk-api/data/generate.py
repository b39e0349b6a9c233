#!/usr/bin/env python3
"""Makes the schema tables of the built-in kinds from Kubernetes' published OpenAPI v3 documents.

    generate.py FOLDER      # FOLDER holds *.json, one document per group and version

Writes beside itself, gzipped JSON, byte for byte the same for the same input:

schemas.json.gz       {definition: schema}, the schemas without their descriptions
descriptions.json.gz  {definition: [description, {property: description}]}
"""

import gzip
import json
import pathlib
import sys

GVK = "x-kubernetes-group-version-kind"


def definitions(folder):
    """All definitions of all documents. Two differ by document in their kinds only: those are joined."""
    found = {}
    for path in sorted(pathlib.Path(folder).glob("*.json")):
        document = json.loads(path.read_text())
        for name, schema in document.get("components", {}).get("schemas", {}).items():
            known = found.setdefault(name, schema)
            if known == schema:
                continue
            kinds = known.get(GVK, []) + [kind for kind in schema.get(GVK, []) if kind not in known.get(GVK, [])]
            if {**known, GVK: 0} != {**schema, GVK: 0}:
                sys.exit(f"{path}: {name} differs from that of another document")
            kinds.sort(key=lambda kind: (kind["group"], kind["version"]))
            found[name] = {**known, GVK: kinds}
    return found


def structure(schema):
    """The schema without descriptions. A property may itself be named `description`."""
    if isinstance(schema, list):
        return [structure(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in schema.items():
        if key == "properties":
            kept[key] = {name: structure(inner) for name, inner in value.items()}
        elif key != "description":
            kept[key] = structure(value) if key in ("items", "additionalProperties", "allOf") else value
    return kept


def descriptions(schema):
    fields = {name: inner["description"] for name, inner in schema.get("properties", {}).items() if "description" in inner}
    return [schema.get("description", ""), fields]


def write(name, value):
    text = json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
    path = pathlib.Path(__file__).parent / name
    path.write_bytes(gzip.compress(text, 9, mtime=0))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    found = definitions(sys.argv[1])
    write("schemas.json.gz", {name: structure(schema) for name, schema in found.items()})
    write("descriptions.json.gz", {name: descriptions(schema) for name, schema in found.items()})


if __name__ == "__main__":
    main()
