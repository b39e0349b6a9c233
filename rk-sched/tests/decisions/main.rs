//! Decision tables: what Kubernetes 1.36 documents of each default plugin, case by case, in `cases/*.yaml`; see `cases/README.md`
//! for the form. Every case names the source of what it expects.
#![cfg(feature = "testing")]

mod case;
mod check;
mod cluster;
mod gang;
mod short;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use case::Table;

/// The least number of cases of each plugin.
const LEAST: [(&str, usize); 20] = [
    ("PrioritySort", 5),
    ("SchedulingGates", 5),
    ("NodeUnschedulable", 8),
    ("NodeName", 5),
    ("TaintToleration", 30),
    ("NodeAffinity", 35),
    ("NodePorts", 15),
    ("NodeResourcesFit", 50),
    ("NodeResourcesBalancedAllocation", 12),
    ("PodTopologySpread", 40),
    ("InterPodAffinity", 40),
    ("ImageLocality", 15),
    ("DefaultPreemption", 25),
    ("VolumeRestrictions", 15),
    ("NodeVolumeLimits", 20),
    ("VolumeBinding", 40),
    ("VolumeZone", 12),
    ("DynamicResources", 55),
    ("GangScheduling", 40),
    ("", 15),
];

fn tables() -> Vec<(String, Table)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/decisions/cases");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "yaml"));
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // Only `true` and `false` are booleans: a node may be called `n`.
        let mut options = serde_saphyr::Options::default();
        options.strict_booleans = true;
        let table = serde_saphyr::from_str_with_options(&fs::read_to_string(path).unwrap(), options);
        (name.clone(), table.unwrap_or_else(|error| panic!("{name}: {error}")))
    };
    files.iter().map(read).collect()
}

#[test]
fn every_decision_is_the_documented_one() {
    let mut wrong = Vec::new();
    let mut number = 0;
    for (file, table) in tables() {
        for case in &table.cases {
            number += 1;
            let found = check::check(&table, case);
            wrong.extend(found.into_iter().map(|what| format!("{file}: {}: {what}", case.name)));
        }
    }
    assert!(wrong.is_empty(), "{} of {number} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_plugin_has_its_cases_and_every_case_its_source() {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for (file, table) in tables() {
        *counts.entry(table.plugin.clone()).or_default() += table.cases.len();
        for case in &table.cases {
            assert!(names.insert((table.plugin.clone(), case.name.clone())), "{file}: two cases {:?}", case.name);
            let source = case.source.as_deref().unwrap_or(&table.source);
            let known = ["https://", "API reference: ", "KEP-", "formula: ", "text: "];
            assert!(known.iter().any(|start| source.starts_with(start)), "{file}: {}: source {source:?}", case.name);
        }
    }
    for (plugin, least) in LEAST {
        let count = counts.get(plugin).copied().unwrap_or(0);
        assert!(count >= least, "{plugin:?} has {count} cases of {least}");
    }
    let all: usize = counts.values().sum();
    assert!(all >= 300, "{all} cases: {counts:?}");
}
