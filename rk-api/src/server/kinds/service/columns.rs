//! The columns of Services.

use serde_json::Value;

use crate::server::{
    Column,
    kinds::{
        cells::{AGE, NAME, column, labels, or_none, wide},
        value::Peek,
    },
};

/// The columns of Services.
pub fn columns() -> Vec<Column> {
    vec![
        NAME,
        column("Type", "string", |service| service.text("spec.type").into()),
        column("Cluster-IP", "string", |service| or_none(service.text("spec.clusterIP"))),
        column("External-IP", "string", |service| external(service.at("spec"), service.at("status")).into()),
        column("Port(s)", "string", |service| ports(service.list("spec.ports"))),
        AGE,
        wide("Selector", "string", |service| labels(service.at("spec.selector"))),
    ]
}

fn external(spec: &Value, status: &Value) -> String {
    let ips = || spec.list("externalIPs").iter().filter_map(Value::as_str);
    match spec.text("type") {
        "LoadBalancer" => {
            let ingress = status.list("loadBalancer.ingress").iter();
            let given = ingress.map(|ingress| match ingress.text("ip") {
                "" => ingress.text("hostname"),
                ip => ip,
            });
            let all: Vec<_> = given.chain(ips()).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => spec.text("externalName").to_owned(),
        _ => {
            let all: Vec<_> = ips().collect();
            if all.is_empty() { "<none>".to_owned() } else { all.join(",") }
        }
    }
}

fn ports(ports: &[Value]) -> Value {
    let one = |port: &Value| {
        let (number, protocol) = (port.int("port").unwrap_or(0), port.text("protocol"));
        match port.int("nodePort").filter(|node| *node > 0) {
            Some(node) => format!("{number}:{node}/{protocol}"),
            None => format!("{number}/{protocol}"),
        }
    };
    or_none(&ports.iter().map(one).collect::<Vec<_>>().join(","))
}
