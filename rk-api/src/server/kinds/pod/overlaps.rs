//! Of volumes that would put files in each other's way.

use serde_json::Value;

use crate::server::kinds::{value::Peek, warn::Warnings};

/// A file of a volume: its path, and in a projected volume the source that it is of.
type File<'a> = (&'a str, String);

/// Of the files of one volume: those of the same path, and those that are in the directory that another one would have to be.
pub fn volume(volume: &Value, warnings: &mut Warnings) {
    let name = volume.text("name");
    for (source, label) in [
        ("configMap", format!("ConfigMap {:?}", volume.text("configMap.name"))),
        ("secret", format!("Secret {:?}", volume.text("secret.secretName"))),
        ("downwardAPI", "DownwardAPI".to_owned()),
    ] {
        let mut known = Vec::new();
        for path in paths(volume.at(source)) {
            add(&mut known, (path, String::new()), &format!("volume {name:?} ({label})"), warnings);
        }
    }
    let mut known = Vec::new();
    for source in volume.list("projected.sources") {
        let label = format!("volume {name:?} (Projected)");
        if source.as_object().is_none_or(|fields| fields.values().all(Value::is_null)) {
            warnings.say(format!("{label} has no sources provided"));
        }
        for file in projected(source) {
            add(&mut known, file, &label, warnings);
        }
    }
}

fn paths(source: &Value) -> impl Iterator<Item = &str> {
    source.list("items").iter().map(|item| item.text("path").trim_end_matches('/'))
}

/// The files of a source of a projected volume that say where they will be.
fn projected(source: &Value) -> Vec<File<'_>> {
    let single = |field: &str| source.at(field).text("path").trim_end_matches('/');
    if source.has("configMap") {
        let label = format!("ConfigMap {:?}", source.text("configMap.name"));
        paths(source.at("configMap")).map(|path| (path, label.clone())).collect()
    } else if source.has("secret") {
        let label = format!("Secret {:?}", source.text("secret.name"));
        paths(source.at("secret")).map(|path| (path, label.clone())).collect()
    } else if source.has("downwardAPI") {
        paths(source.at("downwardAPI")).map(|path| (path, "DownwardAPI".to_owned())).collect()
    } else if source.has("serviceAccountToken") {
        vec![(single("serviceAccountToken"), "ServiceAccountToken".to_owned())]
    } else if source.has("clusterTrustBundle") {
        let bundle = source.at("clusterTrustBundle");
        let name = if bundle.has("name") { bundle.text("name") } else { bundle.text("signerName") };
        vec![(single("clusterTrustBundle"), format!("ClusterTrustBundle {name:?}"))]
    } else {
        let certificate = source.at("podCertificate");
        [
            ("certificateChainPath", "PodCertificate chain"),
            ("keyPath", "PodCertificate key"),
            ("credentialBundlePath", "PodCertificate credential bundle"),
        ]
        .map(|(field, label)| (certificate.text(field).trim_end_matches('/'), label.to_owned()))
        .into()
    }
}

/// Adds a file to those that are known, and tells of each that it is in the way of.
fn add<'a>(known: &mut Vec<File<'a>>, file: File<'a>, label: &str, warnings: &mut Warnings) {
    if file.0.is_empty() {
        return;
    }
    let is_within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    for other in known.iter().filter(|other| is_within(other.0, file.0) || is_within(file.0, other.0)) {
        warnings.say(format!("{label}: overlapping paths: {} with {}", shown(&file), shown(other)));
    }
    known.push(file);
}

fn shown((path, source): &File<'_>) -> String {
    if source.is_empty() { format!("{path:?}") } else { format!("{path:?} ({source})") }
}
