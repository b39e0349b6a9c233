//! The conformance suite of `Admit`.

use serde_json::Value;

use crate::{
    Status,
    server::{AdmissionRequest, Admit, Operation, Reader},
};

/// Checks what is promised of every plugin ([`Admit`]), with writes that it lets through and others that it refuses. Each is made
/// anew by its function, as often as the suite needs it.
///
/// 1. It has a name, and whether it wants to see a write depends on nothing but what it is asked. It wants to see these.
/// 2. It may see a write twice: the second time it changes nothing, and both times it decides the same.
/// 3. It changes nothing but the object's content: not what the write is about, its old object, or the object's kind, name,
///    namespace and uid. Where there is no object, it makes none.
/// 4. To look at a write (`validate`) has no effect on later looks, and a dry run is decided as the write itself.
/// 5. A refusal is a failure with a code of 400 to 599, a reason and a message.
///
/// # Panics
/// A promise is broken.
pub async fn admit_conformance(
    plugin: &dyn Admit,
    reader: &dyn Reader,
    passes: &[&(dyn Fn() -> AdmissionRequest + Sync)],
    refused: &[&(dyn Fn() -> AdmissionRequest + Sync)],
) {
    let name = plugin.name().to_owned();
    assert!(!name.is_empty(), "a plugin without a name");
    for (write, expected) in passes.iter().map(|write| (write, true)).chain(refused.iter().map(|write| (write, false)))
    {
        let asked = write();
        for operation in [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect] {
            let handles = || plugin.handles(operation, &asked.resource, &asked.attributes.subresource);
            assert_eq!(handles(), handles(), "{name}: {operation:?}");
        }
        let wants = plugin.handles(asked.operation, &asked.resource, &asked.attributes.subresource);
        assert!(wants, "{name} does not want to see {asked:?}");
        for dry_run in [false, true] {
            let mut request = AdmissionRequest { dry_run, ..write() };
            let decided = decide(plugin, &mut request, reader).await;
            if let Err(status) = &decided {
                check_refusal(&name, status);
            }
            assert_eq!(decided.is_ok(), expected, "{name}, dry run {dry_run}: {asked:?}: {decided:?}");
            check_kept(&name, &asked, &request);
        }
    }
    assert_eq!(plugin.name(), name);
}

/// Both looks at a write, each twice.
async fn decide(plugin: &dyn Admit, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
    plugin.mutate(request, reader).await?;
    let once = request.object.clone();
    let again = plugin.mutate(request, reader).await;
    assert!(again.is_ok(), "{}: refused when seen again: {again:?}", plugin.name());
    assert_eq!(request.object, once, "{}: changed again", plugin.name());
    let decided = plugin.validate(request, reader).await;
    let again = plugin.validate(request, reader).await;
    assert_eq!(again.as_ref().err(), decided.as_ref().err(), "{}: another decision", plugin.name());
    decided
}

fn check_refusal(name: &str, status: &Status) {
    let code = status.code.unwrap_or_default();
    assert!((400..600).contains(&code), "{name}: {status:?}");
    assert_eq!(status.status.as_deref(), Some("Failure"), "{name}: {status:?}");
    for (what, text) in [("reason", &status.reason), ("message", &status.message)] {
        assert!(text.as_ref().is_some_and(|text| !text.is_empty()), "{name}: no {what}: {status:?}");
    }
}

/// What no plugin changes.
fn check_kept(name: &str, asked: &AdmissionRequest, request: &AdmissionRequest) {
    let about =
        |request: &AdmissionRequest| format!("{:?} {:?} {:?}", request.attributes, request.resource, request.operation);
    assert_eq!(about(request), about(asked), "{name}: what the write is about");
    let old = |request: &AdmissionRequest| request.old_object.as_ref().map(|old| old.json().clone());
    assert_eq!(old(request), old(asked), "{name}: the old object");
    assert_eq!(
        request.object.is_some(),
        asked.object.is_some(),
        "{name}: an object where there was none, or none any more"
    );
    let (Some(object), Some(before)) = (&request.object, &asked.object) else { return };
    let identity = |object: &Value| {
        let meta = &object["metadata"];
        [&object["apiVersion"], &object["kind"], &meta["name"], &meta["namespace"], &meta["uid"]].map(Value::clone)
    };
    assert_eq!(identity(object), identity(before), "{name}: another object");
}
