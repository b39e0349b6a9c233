//! Acting as somebody else: by the permission to be them, or by the permission to be them for one action (KEP-5284).

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use http::HeaderMap;

use crate::{
    Error, Status, names,
    server::{
        Attributes, Decision, UserInfo, audit,
        authz::{decide, forbidden},
        pipeline::Core,
    },
    status,
};

/// The group of what is impersonated, but for what the older verb knows in the core group.
const GROUP: &str = "authentication.k8s.io";
/// Says where the pod of a service account's token runs.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// What authorizers see of what else is known of a service account that acts as its node: the keys, for it may do so wherever it runs.
const NODE_KEYS: &str = "authentication.kubernetes.io/associated-node-keys";
const EXTRA: &str = "impersonate-extra-";
const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";
/// From so many values on it is asked first whether all may be had.
const MANY: usize = 4;

/// By which permission somebody acts as somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    /// To be them, whatever is done so.
    Legacy,
}

impl Mode {
    /// In verbs; empty for the older one.
    fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "",
        }
    }

    /// The verb on who is impersonated.
    fn verb(self) -> Cow<'static, str> {
        match self {
            Self::Legacy => "impersonate".into(),
            mode => format!("impersonate:{}", mode.name()).into(),
        }
    }

    /// Those that may be meant, in the order in which they are tried. Of service accounts and nodes no more than the name may be asked for.
    fn of(user: &UserInfo, wanted: &UserInfo) -> Vec<Self> {
        let only_name = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let mut modes = Vec::new();
        if let Some(node) = node(&wanted.name) {
            let is_there = user.extra.get(NODE_NAME).is_some_and(|names| *names == [node]);
            if only_name && is_there && service_account(&user.name).is_some() {
                modes.push(Self::AssociatedNode);
            }
            modes.extend(only_name.then_some(Self::ArbitraryNode));
        } else if service_account(&wanted.name).is_some() {
            modes.extend(only_name.then_some(Self::ServiceAccount));
        } else {
            modes.push(Self::UserInfo);
        }
        modes.push(Self::Legacy);
        modes
    }
}

/// Lets a caller act as somebody else, where they are allowed to. `asked` is the request, as the caller's own.
///
/// # Errors
/// 403 if they are not allowed to: of all modes, why not by the first. 400 if the headers name nobody.
pub(super) async fn impersonate(
    core: &Core,
    user: Arc<UserInfo>,
    headers: &HeaderMap,
    asked: impl FnOnce() -> Attributes,
) -> Result<Arc<UserInfo>, Error> {
    let Some(wanted) = wanted(headers)? else { return Ok(user) };
    let (asked, mut refused) = (asked(), None);
    for mode in Mode::of(&user, &wanted) {
        match may(core, &user, &wanted, mode, &asked).await {
            Ok(()) => {
                let acting = Arc::new(acting(wanted, mode));
                audit::impersonated(&acting, (mode != Mode::Legacy).then(|| mode.verb().into_owned()));
                return Ok(acting);
            }
            Err(status) => refused = refused.or(Some(status)),
        }
    }
    Err(refused.unwrap_or_else(|| status::internal("all impersonation modes failed")).into())
}

/// Whom the headers name, with the groups that they name.
fn wanted(headers: &HeaderMap) -> Result<Option<UserInfo>, Error> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut wanted = UserInfo::new(text("impersonate-user"), []);
    wanted.uid = text("impersonate-uid").to_owned();
    let groups = headers.get_all("impersonate-group").iter().filter_map(|value| value.to_str().ok());
    wanted.groups = groups.map(str::to_owned).collect();
    for (key, value) in headers {
        let Some(key) = key.as_str().strip_prefix(EXTRA) else { continue };
        let key = super::path::unescape(key).unwrap_or_else(|| key.to_owned());
        wanted.extra.entry(key).or_default().push(value.to_str().unwrap_or_default().to_owned());
    }
    if !wanted.name.is_empty() {
        return Ok(Some(wanted));
    }
    if wanted == UserInfo::default() {
        return Ok(None);
    }
    Err(status::bad_request(format!("requested {} without impersonating a user name", shown(&wanted))).into())
}

/// A user as Go prints one.
fn shown(user: &UserInfo) -> String {
    let list = |texts: &[String]| {
        let texts: Vec<_> = texts.iter().map(|text| format!("{text:?}")).collect();
        if texts.is_empty() { "(nil)".to_owned() } else { format!("{{{}}}", texts.join(", ")) }
    };
    let extra: Vec<_> = user.extra.iter().map(|(key, values)| format!("{key:?}:[]string{}", list(values))).collect();
    let extra = if extra.is_empty() { "(nil)".to_owned() } else { format!("{{{}}}", extra.join(", ")) };
    let (name, uid, groups) = (&user.name, &user.uid, list(&user.groups));
    format!(
        "&user.DefaultInfo{{Name:{name:?}, UID:{uid:?}, Groups:[]string{groups}, Extra:map[string][]string{extra}}}"
    )
}

/// Namespace and name of a service account.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (names::dns_label(namespace).is_empty() && names::dns_subdomain(name).is_empty()).then_some((namespace, name))
}

fn node(user: &str) -> Option<&str> {
    user.strip_prefix("system:node:").filter(|name| names::dns_subdomain(name).is_empty())
}

/// Who is acted as: the groups that were asked for, or those that they have as what they are.
fn acting(mut wanted: UserInfo, mode: Mode) -> UserInfo {
    if wanted.groups.is_empty()
        && let Some((namespace, _)) = service_account(&wanted.name)
    {
        wanted.groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    } else if matches!(mode, Mode::AssociatedNode | Mode::ArbitraryNode) {
        wanted.groups = vec!["system:nodes".to_owned()];
    }
    let is_nobody = wanted.name == "system:anonymous";
    let class = if is_nobody { UNAUTHENTICATED } else { AUTHENTICATED };
    if !wanted.in_group(class) && (is_nobody || !wanted.in_group(UNAUTHENTICATED)) {
        wanted.groups.push(class.to_owned());
    }
    wanted
}

/// Whether a caller may act as somebody else by this mode. In each but the older one both is asked: may they do this as somebody else,
/// and may they be who they want to be.
async fn may(
    core: &Core,
    user: &Arc<UserInfo>,
    wanted: &UserInfo,
    mode: Mode,
    asked: &Attributes,
) -> Result<(), Status> {
    let caller = match mode {
        Mode::AssociatedNode => {
            let extra = BTreeMap::from([(NODE_KEYS.to_owned(), user.extra.keys().cloned().collect())]);
            Arc::new(UserInfo { extra, ..UserInfo::clone(user) })
        }
        _ => Arc::clone(user),
    };
    let ask = async |attributes: Attributes| {
        if core.authorizers.is_empty() {
            return Ok(());
        }
        match decide(&core.authorizers, &attributes).await {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) | Decision::Failed(reason) => {
                Err(forbidden(&attributes, &reason))
            }
        }
    };
    let constrained = mode != Mode::Legacy;
    if constrained {
        let verb = format!("impersonate-on:{}:{}", mode.name(), asked.verb).into();
        ask(Attributes { user: Arc::clone(&caller), verb, ..asked.clone() }).await?;
    }
    let group = if constrained { GROUP } else { "" };
    let check = |group: &'static str, resource: &'static str, namespace: &str, name: &str| Attributes {
        user: Arc::clone(&caller),
        verb: mode.verb(),
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    };
    let who = match (service_account(&wanted.name), node(&wanted.name)) {
        (Some((namespace, name)), _) => check(group, "serviceaccounts", namespace, name),
        // It may be the node of any of its pods.
        (None, Some(_)) if mode == Mode::AssociatedNode => check(group, "nodes", "", "*"),
        (None, Some(name)) if constrained => check(group, "nodes", "", name),
        _ => check(group, "users", "", &wanted.name),
    };
    ask(who).await?;
    if !wanted.uid.is_empty() {
        ask(check(GROUP, "uids", "", &wanted.uid)).await?;
    }

    let of_group = |name: &str| check(group, "groups", "", name);
    if constrained {
        for (name, why) in [
            ("", "impersonating the empty string group is not allowed"),
            (MASTERS, "impersonating the system:masters group is not allowed"),
        ] {
            if wanted.in_group(name) {
                return Err(forbidden(&of_group(name), why));
            }
        }
    }
    let all = constrained && wanted.groups.len() >= MANY && ask(of_group("*")).await.is_ok();
    for name in wanted.groups.iter().filter(|_| !all) {
        ask(of_group(name)).await?;
    }

    let of_extra = |key: &str, value: &str| {
        let attributes = check(GROUP, "userextras", "", value);
        Attributes { subresource: key.to_owned(), ..attributes }
    };
    if constrained && let Some(why) = wanted.extra.iter().find_map(|(key, values)| wrong_extra(key, values)) {
        return Err(forbidden(&of_extra("", ""), &why));
    }
    let count = wanted.extra.values().map(Vec::len).sum::<usize>().max(wanted.extra.len());
    let all = constrained && count >= MANY && ask(of_extra("*", "*")).await.is_ok();
    for (key, values) in wanted.extra.iter().filter(|_| !all) {
        for value in values {
            ask(of_extra(key, value)).await?;
        }
    }
    Ok(())
}

/// Why somebody may not be impersonated with these values of a key, by a mode that is constrained.
fn wrong_extra(key: &str, values: &[String]) -> Option<String> {
    if key.is_empty() {
        return Some("impersonating the empty string key in extra is not allowed".to_owned());
    }
    let in_path = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
    let is_path = key.split_once('/').is_some_and(|(domain, path)| {
        names::dns_subdomain(domain).is_empty() && !path.is_empty() && path.chars().all(in_path)
    });
    if !is_path {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        let why = "impersonating an invalid key in extra is not allowed";
        return Some(format!("{why}: extra.key: Invalid value: {key:?}: {detail}"));
    }
    if key.chars().any(|c| c.is_ascii_uppercase()) {
        return Some(format!("impersonating a non-lowercase key in extra is not allowed: {key:?}"));
    }
    let is_empty = values.iter().any(String::is_empty);
    is_empty.then(|| "impersonating the empty string value in extra is not allowed".to_owned())
}
