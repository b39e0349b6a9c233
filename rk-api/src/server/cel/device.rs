//! Expressions that select devices
//! (<https://kubernetes.io/docs/reference/kubernetes-api/resource/device-class-v1/#DeviceClassSpec>, `dynamic-resource-allocation/cel`).

use std::{collections::BTreeMap, sync::Arc};

use super::{
    CALL_LIMIT, Environment, Program, Type, estimate,
    estimate::Bounds,
    types::{Field, ObjectType, Opaque},
};

/// Bytes of an expression (`CELSelectorExpressionMaxLength`).
pub(crate) const MAX_SELECTOR: usize = 10 << 10;
/// Attributes and capacities of a device (`ResourceSliceMaxAttributesAndCapacitiesPerDevice`).
const MOST: u64 = 32;
/// Characters of an attribute (`DeviceAttributeMaxValueLength`), and of a driver's name.
const LONGEST: u64 = 64;
const DRIVER: u64 = 63;

/// What is wrong with an expression over `device`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It has no value, or one that is no answer.
    Invalid(String),
    /// It may cost more than one evaluation may.
    Costly,
}

/// Judges an expression that selects devices.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_selector(text: &str) -> Result<(), Wrong> {
    let (kind, bounds) = device();
    let mut environment = Environment::default();
    environment.declare("device", kind);
    let program = Program::checked(text, &environment);
    let program = program.map_err(|error| Wrong::Invalid(format!("compilation failed: {error}")))?;
    if !Type::Bool.is(program.kind()) {
        let why = format!("must evaluate to bool or the unknown type, not {}", program.kind());
        return Err(Wrong::Invalid(why));
    }
    if estimate(&program, &[&bounds]) > CALL_LIMIT { Err(Wrong::Costly) } else { Ok(()) }
}

/// The type of a device, and how large one may be.
fn device() -> (Type, Bounds) {
    // By domain and name.
    let twice = |of: Type| Type::map(Type::String, Type::map(Type::String, of));
    let sized = |most| Bounds::of_items(MOST, Bounds::of_items(MOST, Bounds::sized(most)));
    let (mut fields, mut bounds) = (BTreeMap::new(), BTreeMap::new());
    for (name, kind, bound) in [
        ("driver", Type::String, Bounds::sized(DRIVER)),
        ("attributes", twice(Type::Dyn), sized(LONGEST)),
        ("capacity", twice(Type::Opaque(Opaque::Quantity)), sized(1)),
        ("allowMultipleAllocations", Type::Bool, Bounds::sized(1)),
    ] {
        fields.insert(name.into(), Field { json: name.into(), kind });
        bounds.insert(name.into(), bound);
    }
    let object = ObjectType { name: "kubernetes.DRADevice".to_owned(), fields };
    (Type::Object(Arc::new(object)), Bounds::of_fields(bounds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_judged_by_type_and_cost() {
        for good in [
            "device.driver == 'gpu.example.com'",
            "device.attributes['gpu.example.com'].vendor == 'a' && device.attributes['x'].?y.orValue(true)",
            "device.capacity['gpu.example.com'].memory.compareTo(quantity('1Gi')) >= 0",
            "cel.bind(dra, device.attributes['dra.example.com'], dra.someBool)",
            "device.attributes['gpu.example.com'].version.isGreaterThan(semver('1.2.3'))",
        ] {
            assert_eq!(check_selector(good), Ok(()), "{good}");
        }
        let error = |text| check_selector(text).unwrap_err();
        assert_eq!(
            error("device.driver"),
            Wrong::Invalid("must evaluate to bool or the unknown type, not string".to_owned())
        );
        for (text, why) in [("device.nothing", "undefined field 'nothing'"), ("noSuch", "undeclared reference")] {
            assert!(matches!(error(text), Wrong::Invalid(found) if found.contains(why)), "{text}");
        }
        let nested = "device.attributes.all(a, device.attributes.all(b, device.attributes.all(c, \
                      device.attributes.all(d, a + b + c == d))))";
        assert_eq!(error(nested), Wrong::Costly);
    }
}
