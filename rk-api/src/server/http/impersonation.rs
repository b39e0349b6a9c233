//! Acting as somebody else: by the permission to be them, or by the permission to be them for one action (KEP-5284).

use std::{borrow::Cow, sync::Arc};

use http::HeaderMap;

use crate::{
    Error,
    server::{Attributes, Decision, UserInfo, audit, authz::decide, pipeline::Core},
    status,
};

/// The group of what is impersonated, but for what the older verb knows in the core group.
const GROUP: &str = "authentication.k8s.io";
/// Says where the pod of a service account's token runs.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const EXTRA: &str = "impersonate-extra-";

/// Lets a caller act as somebody else, where they are allowed to. `asked` is the request, as the caller's own.
///
/// # Errors
/// 403 if they are not allowed to, 500 if the headers name nobody.
pub(super) async fn impersonate(
    core: &Core,
    user: Arc<UserInfo>,
    headers: &HeaderMap,
    asked: impl FnOnce() -> Attributes,
) -> Result<Arc<UserInfo>, Error> {
    let Some(mut acting) = wanted(headers)? else { return Ok(user) };
    let mode = constrained(core, &user, &acting, asked).await;
    if mode.is_none() {
        for attributes in checks(&user, &acting, "impersonate".into(), "") {
            core.authorize_attributes(&attributes).await?;
        }
    }
    if acting.groups.is_empty() {
        if let Some((namespace, _)) = service_account(&acting.name) {
            acting.groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        } else if mode.is_some() && node(&acting.name).is_some() {
            acting.groups = vec!["system:nodes".to_owned()];
        }
    }
    let class = if acting.name == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
    if !acting.in_group("system:authenticated") && !acting.in_group("system:unauthenticated") {
        acting.groups.push(class.to_owned());
    }
    let acting = Arc::new(acting);
    audit::impersonated(&acting, mode.map(|mode| format!("impersonate:{mode}")));
    Ok(acting)
}

/// Whom the headers name, with the groups that they name.
fn wanted(headers: &HeaderMap) -> Result<Option<UserInfo>, Error> {
    if !headers.keys().any(|key| key.as_str().starts_with("impersonate-")) {
        return Ok(None);
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = text("impersonate-user");
    if name.is_empty() {
        return Err(status::internal("requested impersonation without impersonating a user").into());
    }
    let mut acting = UserInfo::new(name, []);
    acting.uid = text("impersonate-uid").to_owned();
    let groups = headers.get_all("impersonate-group").iter().filter_map(|value| value.to_str().ok());
    acting.groups = groups.map(str::to_owned).collect();
    for (key, value) in headers {
        let Some(extra) = key.as_str().strip_prefix(EXTRA).and_then(super::path::unescape) else { continue };
        acting.extra.entry(extra).or_default().push(value.to_str().unwrap_or_default().to_owned());
    }
    Ok(Some(acting))
}

fn service_account(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("system:serviceaccount:")?.split_once(':')
}

fn node(name: &str) -> Option<&str> {
    name.strip_prefix("system:node:")
}

/// The mode in which the caller may act so in this request, if there is one. In each both is asked: may they do this as somebody
/// else, and may they be who they want to be.
async fn constrained(
    core: &Core,
    user: &Arc<UserInfo>,
    acting: &UserInfo,
    asked: impl FnOnce() -> Attributes,
) -> Option<&'static str> {
    let modes = modes(user, acting);
    if modes.is_empty() || core.authorizers.is_empty() {
        return None;
    }
    let asked = asked();
    for mode in modes {
        let action = Attributes { verb: format!("impersonate-on:{mode}:{}", asked.verb).into(), ..asked.clone() };
        let mut all = vec![action];
        all.extend(checks(user, acting, format!("impersonate:{mode}").into(), mode));
        let mut allowed = true;
        for attributes in &all {
            allowed = allowed && matches!(decide(&core.authorizers, attributes).await, Decision::Allow(_));
        }
        if allowed {
            return Some(mode);
        }
    }
    None
}

/// The modes that may be meant. Of service accounts and nodes no more than the name may be asked for.
fn modes(user: &UserInfo, acting: &UserInfo) -> Vec<&'static str> {
    let only_name = acting.uid.is_empty() && acting.groups.is_empty() && acting.extra.is_empty();
    if service_account(&acting.name).is_some() {
        return if only_name { vec!["serviceaccount"] } else { Vec::new() };
    }
    let Some(node) = node(&acting.name) else { return vec!["user-info"] };
    if !only_name {
        return Vec::new();
    }
    let its_own = user.extra.get(NODE_NAME).is_some_and(|names| names.len() == 1 && names[0] == node);
    if its_own && service_account(&user.name).is_some() {
        return vec!["associated-node", "arbitrary-node"];
    }
    vec!["arbitrary-node"]
}

/// What has to be allowed for a caller to be somebody else: with the older verb if `mode` is empty.
fn checks(user: &Arc<UserInfo>, acting: &UserInfo, verb: Cow<'static, str>, mode: &str) -> Vec<Attributes> {
    let group = if mode.is_empty() { "" } else { GROUP };
    let check = |group: &'static str, resource: &'static str, namespace: &str, name: &str| Attributes {
        user: Arc::clone(user),
        verb: verb.clone(),
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    };
    let mut checks = vec![match (service_account(&acting.name), mode) {
        (Some((namespace, name)), _) => check(group, "serviceaccounts", namespace, name),
        (None, "associated-node") => check(group, "nodes", "", "*"),
        (None, "arbitrary-node") => check(group, "nodes", "", node(&acting.name).unwrap_or_default()),
        (None, _) => check(group, "users", "", &acting.name),
    }];
    checks.extend(acting.groups.iter().map(|name| check(group, "groups", "", name)));
    if !acting.uid.is_empty() {
        checks.push(check(GROUP, "uids", "", &acting.uid));
    }
    for (extra, values) in &acting.extra {
        let of = |value: &String| Attributes { subresource: extra.clone(), ..check(GROUP, "userextras", "", value) };
        checks.extend(values.iter().map(of));
    }
    checks
}
