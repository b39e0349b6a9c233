//! Devices and claims on them.

use serde_json::{Value, json};

use super::{
    super::{objects, template::Values, workload::Action},
    PerfError,
    build::{Builder, name_of},
    format::{CreateResourceClaims, CreateResourceDriver},
};

impl Builder<'_> {
    pub(super) fn create_resource_claims(&mut self, number: usize, op: &CreateResourceClaims) -> Result<(), PerfError> {
        self.ensure_namespace(&op.namespace)?;
        let count = self.count(&op.count)?;
        let template = self.template(&op.template_path)?;
        let claim = |index| {
            let value = template.object(&Values { index, count, others: &[] })?;
            let name = name_of(&value, number, index);
            let claim = objects::other(value, &name, Some(&op.namespace));
            claim.map(Action::Apply).map_err(|error| PerfError::new(&template.path, error))
        };
        let claims = (0..count).map(claim).collect::<Result<_, _>>()?;
        self.at_once(claims);
        Ok(())
    }

    /// Publishes a driver's devices: so many on each of its nodes.
    pub(super) fn create_resource_driver(&mut self, op: &CreateResourceDriver) -> Result<(), PerfError> {
        let devices = match &op.max_claims_per_node_param {
            Some(name) => {
                let number = self.parameter(name)?.as_u64();
                number.ok_or_else(|| self.wrong(format!("parameter {name:?} is no number")))?
            }
            None => op.max_claims_per_node.unwrap_or(0),
        };
        let devices: Vec<Value> = (0..devices).map(device).collect();
        let slice = |node: &String| {
            let pool = json!({"name": node, "generation": 1, "resourceSliceCount": 1});
            let spec = json!({"driver": op.driver_name, "nodeName": node, "pool": pool, "devices": devices});
            let slice = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "spec": spec});
            let slice = objects::other(slice, &format!("{node}-{}", op.driver_name), None);
            slice.map(Action::Apply).map_err(|error| self.wrong(error))
        };
        let its = self.nodes.iter().filter(|node| matches(&op.nodes, node));
        let slices: Vec<Action> = its.map(slice).collect::<Result<_, _>>()?;
        if slices.is_empty() {
            return Err(self.wrong(format!("createResourceDriver: no node is named {:?}", op.nodes)));
        }
        self.at_once(slices);
        Ok(())
    }
}

/// A device as scheduler_perf's driver has it.
fn device(number: u64) -> Value {
    json!({
        "name": format!("instance-{number}"),
        "attributes": {
            "model": {"string": "A100"}, "family": {"string": "GPU"}, "driverVersion": {"version": "1.2.3"},
            "dra.example.com/numa": {"int": number},
        },
        "capacity": {"memory": {"value": "1Gi"}},
    })
}

/// Whether a name is of a pattern with `*` and `?`.
fn matches(pattern: &str, name: &str) -> bool {
    let mut pattern = pattern.chars();
    match pattern.next() {
        None => name.is_empty(),
        Some('*') => {
            name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| matches(pattern.as_str(), &name[at..]))
        }
        Some(wanted) => {
            let mut name = name.chars();
            name.next().is_some_and(|letter| wanted == '?' || wanted == letter)
                && matches(pattern.as_str(), name.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn nodes_are_named_by_patterns() {
        for (pattern, name) in [("*", "a"), ("a-*", "a-"), ("a-*-?", "a-b-c-d"), ("node", "node"), ("*", "")] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("", "a"), ("a-*", "b-a"), ("a-?", "a-"), ("node", "nodes")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
