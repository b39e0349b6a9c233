//! Acting as somebody else.

use serde_json::{Value, json};

use super::common::{Api, bearer, with};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A rule about who is impersonated.
fn identity(resource: &str, names: &[&str], mode: &str) -> Value {
    let verb = format!("impersonate:{mode}");
    json!({"apiGroups": ["authentication.k8s.io"], "resources": [resource], "resourceNames": names, "verbs": [verb]})
}

/// A rule about what is done.
fn action(resource: &str, verb: &str) -> Value {
    json!({"apiGroups": ["", "authentication.k8s.io"], "resources": [resource], "verbs": [verb]})
}

/// Lets a user, or a service account of the default namespace (`sa:NAME`), do this: everywhere, or in the default namespace.
async fn allow(api: &Api, who: &str, everywhere: bool, rules: Value) {
    let (name, group) = (who.replace(':', "-"), "rbac.authorization.k8s.io");
    let (path, kind) = match everywhere {
        true => (RBAC.to_owned(), "ClusterRole"),
        false => (format!("{RBAC}/namespaces/default"), "Role"),
    };
    let plural = format!("{}s", kind.to_lowercase());
    let subject = match who.strip_prefix("sa:") {
        Some(name) => json!({"kind": "ServiceAccount", "name": name, "namespace": "default"}),
        None => json!({"kind": "User", "name": who, "apiGroup": group}),
    };
    let binding = json!({"metadata": {"name": name}, "subjects": [subject],
        "roleRef": {"apiGroup": group, "kind": kind, "name": name}});
    api.create(&format!("{path}/{plural}"), json!({"metadata": {"name": name}, "rules": rules})).await;
    api.create(&format!("{path}/{}bindings", kind.to_lowercase()), binding).await;
}

/// The headers of who is impersonated.
fn acting<'a>(name: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[("Impersonate-User", name)], more].concat()
}

#[tokio::test]
async fn impersonation_is_a_permission() {
    let api = Api::start(|_, security| security).await;
    let (rbac, meta) = ("/apis/rbac.authorization.k8s.io/v1", |name: &str| json!({"name": name}));
    let rules = json!([
        {"apiGroups": [""], "resources": ["users", "groups"], "verbs": ["impersonate"], "resourceNames": ["joe", "ops"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["uids", "userextras/team"], "verbs": ["impersonate"],
            "resourceNames": ["7", "a"]},
    ]);
    api.create(&format!("{rbac}/clusterroles"), json!({"metadata": meta("acts"), "rules": rules})).await;
    let binding = json!({"metadata": meta("acts"), "subjects": [{"kind": "User", "name": "jane",
        "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "acts"}});
    api.create(&format!("{rbac}/clusterrolebindings"), binding).await;
    let (user, group, uid) = (("Impersonate-User", "joe"), ("Impersonate-Group", "ops"), ("Impersonate-Uid", "7"));
    let extra = ("Impersonate-Extra-Team", "a");
    let joe = api.whoami(&with("jane", &[user, group, uid, extra])).await.unwrap();
    let groups = json!(["ops", "system:authenticated"]);
    assert_eq!(joe, json!({"username": "joe", "uid": "7", "groups": groups, "extra": {"team": ["a"]}}));
    assert_eq!(api.whoami(&with("jane", &[("Impersonate-User", "root")])).await, Err(403));
    assert_eq!(api.whoami(&with("jane", &[user, ("Impersonate-Group", "system:masters")])).await, Err(403));
    assert_eq!(api.whoami(&with("jane", &[user, ("Impersonate-Uid", "8")])).await, Err(403));
    assert_eq!(api.whoami(&with("jane", &[user, ("Impersonate-Extra-Team", "b")])).await, Err(403));
    let nameless = api.get(&with("jane", &[group, uid, extra]), "/version").await;
    let who = r#"&user.DefaultInfo{Name:"", UID:"7", Groups:[]string{"ops"}, Extra:map[string][]string{"team":[]string{"a"}}}"#;
    let text = format!("requested {who} without impersonating a user name");
    assert_eq!((nameless.code, nameless.body["message"].as_str()), (400, Some(&text[..])));
    let account = [("Impersonate-User", "system:serviceaccount:default:bot")];
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]);
    assert_eq!(api.whoami(&with("admin", &account)).await.unwrap()["groups"], groups);
    let nobody = [("Impersonate-User", "system:anonymous")];
    assert_eq!(api.whoami(&with("admin", &nobody)).await, Err(403), "nobody may not even ask who they are");
}

#[tokio::test]
async fn a_user_may_be_another_one_for_single_actions() {
    let api = Api::start(|_, security| security).await;
    let of_jane = json!([
        identity("users", &["joe", "system:node:"], "user-info"),
        identity("groups", &["ops", "system:masters"], "user-info"),
        identity("userextras/example.com/team", &["a"], "user-info"),
        action("configmaps", "impersonate-on:user-info:list"),
        identity("nodes", &["n1"], "arbitrary-node"),
        action("nodes", "impersonate-on:arbitrary-node:get"),
    ]);
    allow(&api, "jane", true, of_jane).await;
    for who in ["joe", "system:node:"] {
        allow(&api, who, true, json!([action("configmaps", "list"), action("configmaps", "get")])).await;
    }
    let one = format!("{MAPS}/none");
    let (group, extra) = ("Impersonate-Group", "Impersonate-Extra-Example.com%2Fteam");
    for (name, more, path, code) in [
        ("joe", &[][..], MAPS, 200),
        ("joe", &[(group, "ops")], MAPS, 200),
        ("joe", &[(extra, "a")], MAPS, 200),
        ("joe", &[], &one, 403),
        ("joe", &[(group, "other")], MAPS, 403),
        ("joe", &[("Impersonate-Uid", "1")], MAPS, 403),
        ("joe", &[(extra, "b")], MAPS, 403),
        ("joe", &[("Impersonate-Extra-Team", "a")], MAPS, 403),
        // Which no rule allows by this mode.
        ("joe", &[(group, "system:masters")], MAPS, 403),
        ("joe", &[(group, "")], MAPS, 403),
        ("root", &[], MAPS, 403),
        // The node may see itself, and there is none.
        ("system:node:n1", &[], "/api/v1/nodes/n1", 404),
        ("system:node:n2", &[], "/api/v1/nodes/n2", 403),
        ("system:node:n1", &[(group, "ops")], "/api/v1/nodes/n1", 403),
        // No node has this name.
        ("system:node:", &[], MAPS, 200),
    ] {
        let headers = acting(name, more);
        assert_eq!(api.get(&with("jane", &headers), path).await.code, code, "{headers:?} {path}");
    }
    assert_eq!(api.get(&bearer("jane"), MAPS).await.code, 403, "as herself");
    let refused = api.get(&with("jane", &acting("joe", &[])), &one).await;
    let text = "configmaps \"none\" is forbidden: User \"jane\" cannot impersonate-on:user-info:get resource \"configmaps\" in API \
                group \"\" in the namespace \"default\"";
    assert_eq!(refused.body["message"], text, "it is told of what was tried first");
}

#[tokio::test]
async fn all_groups_are_one_permission_where_many_are_asked_for() {
    let api = Api::start(|_, security| security).await;
    let of_jane = json!([
        identity("users", &["joe"], "user-info"),
        identity("groups", &["*"], "user-info"),
        action("selfsubjectreviews", "impersonate-on:user-info:create"),
    ]);
    allow(&api, "jane", true, of_jane).await;
    let group = |name| ("Impersonate-Group", name);
    let four = acting("joe", &["a", "b", "c", "d"].map(group));
    let joe = api.whoami(&with("jane", &four)).await.unwrap();
    assert_eq!(joe["groups"], json!(["a", "b", "c", "d", "system:authenticated"]));
    assert_eq!(api.whoami(&with("jane", &four[..4])).await, Err(403), "each of three is asked for");
}

#[tokio::test]
async fn a_service_account_may_be_acted_as_for_single_actions() {
    let api = Api::start(|_, security| security).await;
    let of_jane = json!([
        identity("serviceaccounts", &["bot"], "serviceaccount"),
        action("configmaps", "impersonate-on:serviceaccount:list"),
    ]);
    allow(&api, "jane", false, of_jane).await;
    allow(&api, "sa:bot", false, json!([action("configmaps", "list"), action("configmaps", "get")])).await;
    let bot = "system:serviceaccount:default:bot";
    let one = format!("{MAPS}/none");
    let elsewhere = "/api/v1/namespaces/kube-public/configmaps";
    for (name, more, path, code) in [
        (bot, &[][..], MAPS, 200),
        (bot, &[], &one, 403),
        (bot, &[], elsewhere, 403),
        ("system:serviceaccount:default:other", &[], MAPS, 403),
        ("system:serviceaccount:kube-public:bot", &[], MAPS, 403),
        ("system:serviceaccount:default:bot:more", &[], MAPS, 403),
        // It is what it is, and nobody else may say.
        (bot, &[("Impersonate-Group", "system:serviceaccounts")], MAPS, 403),
        (bot, &[("Impersonate-Uid", "1")], MAPS, 403),
        (bot, &[("Impersonate-Extra-Example.com%2Fteam", "a")], MAPS, 403),
    ] {
        let headers = acting(name, more);
        assert_eq!(api.get(&with("jane", &headers), path).await.code, code, "{headers:?} {path}");
    }
    assert_eq!(api.whoami(&with("jane", &acting(bot, &[]))).await, Err(403), "that is another action");
    allow(&api, "jane", true, json!([action("selfsubjectreviews", "impersonate-on:serviceaccount:create")])).await;
    let who = api.whoami(&with("jane", &acting(bot, &[]))).await.unwrap();
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]);
    assert_eq!(who, json!({"username": bot, "groups": groups}));
}

#[tokio::test]
async fn an_agent_may_act_as_the_node_that_it_runs_on() {
    let api = Api::start(|_, security| security).await;
    let token = async |node: &str, account: &str| {
        let request = match node {
            "" => json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}),
            node => {
                let pod = json!({"metadata": {"name": format!("{account}-{node}")}, "spec": {"nodeName": node,
                    "serviceAccountName": account, "containers": [{"name": "c", "image": "i"}]}});
                let pod = api.create("/api/v1/namespaces/default/pods", pod).await;
                let (name, uid) = (&pod["metadata"]["name"], &pod["metadata"]["uid"]);
                json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {
                    "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid}}})
            }
        };
        let path = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
        api.create(&path, request).await["status"]["token"].as_str().unwrap().to_owned()
    };
    for name in ["n1", "n2"] {
        api.create("/api/v1/nodes", json!({"metadata": {"name": name}})).await;
    }
    let rules = json!([
        identity("nodes", &["*"], "associated-node"),
        action("nodes", "impersonate-on:associated-node:get"),
        action("selfsubjectreviews", "impersonate-on:associated-node:create"),
    ]);
    for name in ["agent", "other"] {
        api.create("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": name}})).await;
    }
    for who in ["sa:agent", "jane"] {
        allow(&api, who, true, rules.clone()).await;
    }
    let [first, second] = [token("n1", "agent").await, token("n2", "agent").await];
    let [nowhere, other] = [token("", "agent").await, token("n1", "other").await];
    let node = "/api/v1/nodes";
    let (n1, n2) = (format!("{node}/n1"), format!("{node}/n2"));
    for (token, name, more, path, code) in [
        // One role serves the agents of all nodes, each as its own.
        (&first[..], "system:node:n1", &[][..], &n1[..], 200),
        (&second, "system:node:n2", &[], &n2, 200),
        (&first, "system:node:n2", &[], &n2, 403),
        (&first, "system:node:n1", &[], node, 403),
        (&first, "system:node:n1", &[], "/api/v1/namespaces/default/pods", 403),
        (&first, "system:node:n1", &[("Impersonate-Group", "system:nodes")], &n1, 403),
        (&nowhere, "system:node:n1", &[], &n1, 403),
        (&other, "system:node:n1", &[], &n1, 403),
        ("jane", "system:node:n1", &[], &n1, 403),
    ] {
        let headers = acting(name, more);
        assert_eq!(api.get(&with(token, &headers), path).await.code, code, "{headers:?} {path}");
    }
    let who = api.whoami(&with(&first, &acting("system:node:n1", &[]))).await.unwrap();
    assert_eq!(who, json!({"username": "system:node:n1", "groups": ["system:nodes", "system:authenticated"]}));
}
