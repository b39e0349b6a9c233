//! Expressions that select devices
//! (<https://kubernetes.io/docs/reference/kubernetes-api/resource/device-class-v1/#DeviceClassSpec>, `dynamic-resource-allocation/cel`).

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::resource::v1::{Device as Published, DeviceAttribute};

use super::{
    Answers, CALL_LIMIT, Environment, Meter, Other, Program, Type, Val, estimate,
    estimate::Bounds,
    library::semver::Semver,
    types::{Field, ObjectType, Opaque},
    value::{Key, Map},
};
use crate::Quantity;

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
    let program = compile(text, kind).map_err(Wrong::Invalid)?;
    if estimate(&program, &[&bounds]) > CALL_LIMIT { Err(Wrong::Costly) } else { Ok(()) }
}

fn compile(text: &str, kind: Type) -> Result<Program, String> {
    let mut environment = Environment::default();
    environment.declare("device", kind);
    let program = Program::checked(text, &environment).map_err(|error| format!("compilation failed: {error}"))?;
    if Type::Bool.is(program.kind()) {
        return Ok(program);
    }
    Err(format!("must evaluate to bool or the unknown type, not {}", program.kind()))
}

/// A compiled expression that selects devices.
///
/// ```
/// use rk_api::{cel::device::{Device, Selector}, k8s_openapi::api::resource::v1};
/// use serde_json::json;
///
/// let published: v1::Device = serde_json::from_value(json!({
///     "name": "gpu-0", "attributes": {"model": {"string": "a100"}}, "capacity": {"memory": {"value": "40Gi"}},
/// }))?;
/// let device = Device::new("gpu.example.com", &published)?;
/// let selector = Selector::compile("device.attributes['gpu.example.com'].model == 'a100'")?;
/// assert_eq!(selector.matches(&device), Ok(true));
/// let large = "device.capacity['gpu.example.com'].memory.compareTo(quantity('80Gi')) >= 0";
/// assert_eq!(Selector::compile(large)?.matches(&device), Ok(false));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Selector(Program);

impl Selector {
    /// Compiles an expression over `device`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(text: &str) -> Result<Self, String> {
        if text.len() > MAX_SELECTOR {
            return Err(format!("the expression is longer than {MAX_SELECTOR} bytes"));
        }
        compile(text, device().0).map(Self)
    }

    /// Whether it selects a device.
    ///
    /// # Errors
    /// The expression has no value for the device, such as where it reads an attribute that the device does not have,
    /// or costs more than Kubernetes allows (`CELSelectorExpressionMaxCost`).
    pub fn matches(&self, device: &Device) -> Result<bool, String> {
        let answers = Answers::default();
        let mut meter = Meter::new(CALL_LIMIT, &answers);
        match self.0.evaluate(std::slice::from_ref(&device.0), &mut meter) {
            Ok(Val::Bool(selected)) => Ok(selected),
            Ok(_) => Err("CEL result of type unknown could not be converted to bool".to_owned()),
            Err(failure) => Err(failure.to_string()),
        }
    }
}

/// A device as expressions see it.
#[derive(Debug, Clone)]
pub struct Device(Val<'static>);

impl Device {
    /// Reads a device that a driver published. Names without a domain are of the driver's.
    ///
    /// # Errors
    /// A version or a quantity that is none.
    pub fn new(driver: &str, device: &Published) -> Result<Self, String> {
        let attributes = device.attributes.iter().flatten().map(|(name, value)| {
            let wrong = || format!("attribute {name}: invalid semantic version {:?}", value.version);
            Ok((name, attribute(value).ok_or_else(wrong)?))
        });
        let capacity = device.capacity.iter().flatten().map(|(name, capacity)| {
            let quantity = Quantity::try_from(&capacity.value).map_err(|error| format!("capacity {name}: {error}"))?;
            Ok((name, Val::other(Other::Quantity(quantity))))
        });
        let fields = [
            ("driver", Val::text(driver)),
            ("attributes", by_domain(driver, attributes)?),
            ("capacity", by_domain(driver, capacity)?),
            ("allowMultipleAllocations", Val::Bool(device.allow_multiple_allocations.unwrap_or(false))),
        ];
        let fields = fields.into_iter().map(|(name, value)| (Key::String(name.into()), value));
        Ok(Self(Val::Map(Map::Made(Arc::new(fields.collect())))))
    }
}

/// The value of an attribute; `None` for a version that is none.
fn attribute(value: &DeviceAttribute) -> Option<Val<'static>> {
    Some(match value {
        DeviceAttribute { bool: Some(flag), .. } => Val::Bool(*flag),
        DeviceAttribute { int: Some(number), .. } => Val::Int(*number),
        DeviceAttribute { string: Some(text), .. } => Val::text(text.as_str()),
        DeviceAttribute { version: Some(text), .. } => Val::other(Other::Semver(Semver::read(text)?)),
        _ => Val::Null,
    })
}

/// Values by the domains of their names.
fn by_domain<'n>(
    driver: &str,
    values: impl Iterator<Item = Result<(&'n String, Val<'static>), String>>,
) -> Result<Val<'static>, String> {
    let mut domains: BTreeMap<Key, BTreeMap<Key, Val<'static>>> = BTreeMap::new();
    for value in values {
        let (name, value) = value?;
        let (domain, name) = name.split_once('/').unwrap_or((driver, name));
        domains.entry(Key::String(domain.into())).or_default().insert(Key::String(name.into()), value);
    }
    let maps = domains.into_iter().map(|(domain, values)| (domain, Val::Map(Map::Made(Arc::new(values)))));
    Ok(Val::Map(Map::Domains(Arc::new(maps.collect()))))
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
    fn devices_are_selected_by_what_they_have() {
        let published = serde_json::from_value(serde_json::json!({
            "name": "gpu-0", "allowMultipleAllocations": true,
            "attributes": {
                "model": {"string": "a"}, "example.com/numa": {"int": 1}, "firmware": {"version": "1.10.0"},
                "healthy": {"bool": true},
            },
            "capacity": {"memory": {"value": "8Gi"}},
        }));
        let device = Device::new("gpu.example.com", &published.unwrap()).unwrap();
        let selects = |text: &str| Selector::compile(text).unwrap().matches(&device);
        for text in [
            "device.driver == 'gpu.example.com' && device.allowMultipleAllocations",
            "device.attributes['gpu.example.com'].healthy && device.attributes['example.com'].numa == 1",
            "device.attributes['gpu.example.com'].firmware.isGreaterThan(semver('1.9.0'))",
            "device.capacity['gpu.example.com'].memory.isGreaterThan(quantity('7Gi'))",
            "!('other.example.com' in device.attributes) && 'example.com' in device.attributes",
            // Nothing is known of the domain, which is no failure.
            "!('x' in device.attributes['other.example.com'])",
            "!has(device.attributes['other.example.com'].x) && device.attributes['o'].?x.orValue(true)",
        ] {
            assert_eq!(selects(text), Ok(true), "{text}");
        }
        assert_eq!(selects("device.attributes['other.example.com'].x == 1"), Err("no such key: x".to_owned()));
        let wrong = serde_json::from_value(serde_json::json!({"name": "d", "attributes": {"v": {"version": "x"}}}));
        assert!(Device::new("d", &wrong.unwrap()).unwrap_err().contains("semantic version"));
        assert!(Selector::compile("device.driver").unwrap_err().contains("must evaluate to bool"));
    }

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
