//! Defaulting by schema.

use serde_json::Value;

use super::{Schema, Shape};

/// Sets what is missing and has a default, in all parents that are there. A null that is no value gives way to its default.
pub(super) fn apply(schema: &Schema, value: &mut Value) {
    match (&schema.resolve().shape, value) {
        (Shape::Object { fields, others }, Value::Object(map)) => {
            for (name, field) in fields {
                if let Some(default) = &field.default
                    && map.get(&**name).is_none_or(|value| value.is_null() && !field.nullable)
                {
                    map.insert(name.to_string(), default.clone());
                }
            }
            for (name, value) in map.iter_mut() {
                if let Some(inner) = fields.get(name.as_str()).or(others.as_deref()) {
                    if value.is_null()
                        && !inner.nullable
                        && let Some(default) = &inner.default
                    {
                        *value = default.clone();
                    }
                    apply(inner, value);
                }
            }
        }
        (Shape::List(items), Value::Array(list)) => {
            for item in list {
                if item.is_null()
                    && !items.nullable
                    && let Some(default) = &items.default
                {
                    *item = default.clone();
                }
                apply(items, item);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn missing_fields_of_present_parents_are_set() {
        let schema = Schema::builtin("apps", "v1", "Deployment").unwrap();
        let mut object =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80}]}]}}}});
        schema.apply_defaults(&mut object);
        assert_eq!(object["status"], json!({}));
        assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["resources"], json!({}));
        assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["ports"][0]["protocol"], "TCP");
        assert_eq!(object["spec"]["selector"], Value::Null);
    }

    #[test]
    fn a_null_gives_way_to_the_default_of_a_custom_resource() {
        let schema = Schema::from_crd(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "default": {}, "properties": {
                "size": {"type": "integer", "default": 3},
                "hint": {"type": "string", "nullable": true, "default": "x"},
            }},
        }}))
        .unwrap();
        let mut object = json!({"spec": {"size": null, "hint": null}});
        schema.apply_defaults(&mut object);
        assert_eq!(object, json!({"spec": {"size": 3, "hint": null}}));
        let mut object = json!({});
        schema.apply_defaults(&mut object);
        assert_eq!(object, json!({"spec": {"size": 3, "hint": "x"}}));
    }
}
