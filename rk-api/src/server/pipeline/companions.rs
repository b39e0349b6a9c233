//! What a write changes besides its object: what the object alone may hold, and the objects that come and go with it.

use serde_json::Value;

use super::{Call, Core, meta};
use crate::{
    Error, Resource, WriteOptions,
    server::storage::{Beside, Claims, encode, key},
};

/// Who owns the fields of objects that the server makes with others.
const MANAGER: &str = "kube-apiserver";

impl Core {
    /// What a write changes that makes `new` (`None`: nothing) of `old`.
    ///
    /// # Errors
    /// An object that comes with `new` is none.
    pub(super) async fn claims(&self, call: &Call, old: Option<&Value>, new: Option<&Value>) -> Result<Claims, Error> {
        let strategy = &call.served.row.strategy;
        let held = |object: Option<&Value>| object.map(|object| strategy.claims(object)).unwrap_or_default();
        let companions = |object: Option<&Value>| object.map(|object| strategy.companions(object)).unwrap_or_default();
        let (mut before, mut after) = (companions(old), companions(new));
        let kept: Vec<_> =
            before.iter().map(place).filter(|place| after.iter().any(|one| self::place(one) == *place)).collect();
        before.retain(|one| !kept.contains(&place(one)));
        after.retain(|one| !kept.contains(&place(one)));
        let mut made = Vec::with_capacity(after.len());
        for (resource, object) in after {
            made.push(self.new_beside(&resource, object, 0).await?);
        }
        Ok(Claims::change(held(old), held(new)).with(made).without(before.iter().map(place).collect()))
    }

    /// An object that the server writes by itself beside another, or in place of what is at this revision.
    ///
    /// # Errors
    /// It is no object.
    pub(crate) async fn new_beside(
        &self,
        resource: &Resource,
        mut object: Value,
        expected: rk_store::Revision,
    ) -> Result<Beside, Error> {
        let name = meta::text(&object, "name").to_owned();
        let namespace = meta::text(&object, "namespace").to_owned();
        // One that is not served has no schema by which its fields could be told.
        if let Ok(call) = self.own_call(resource, &namespace, &name, "") {
            meta::fill(&mut object, &call)?;
            self.track(&call, None, &mut object, &WriteOptions::manager(MANAGER)).await;
        }
        let collection = key::collection(&resource.group, &resource.plural);
        Ok(Beside::new(collection, key::item(&namespace, &name), encode(&object), expected))
    }
}

/// Where an object lies: its collection, and its name in it.
fn place((resource, object): &(Resource, Value)) -> (String, String) {
    let item = key::item(meta::text(object, "namespace"), meta::text(object, "name"));
    (key::collection(&resource.group, &resource.plural), item)
}
