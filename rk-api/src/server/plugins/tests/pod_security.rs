//! The levels of pod security.

use super::*;

async fn create(labels: Value, spec: Value) -> Result<Vec<String>, String> {
    let all = cluster([("namespaces", namespace("dev", labels))]);
    let result = Case::pods(&all).run(&PodSecurity::default(), pod("p", spec)).await;
    result.map(|(_, warnings)| warnings).map_err(|(_, message)| message)
}

fn hardened() -> Value {
    json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "securityContext":
            {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    })
}

#[tokio::test]
async fn levels_are_enforced_and_warned_of() {
    let enforce = |level: &str| json!({"pod-security.kubernetes.io/enforce": level});
    let privileged = json!({"containers": [{"name": "c", "securityContext": {"privileged": true}}]});
    assert!(create(json!({}), privileged.clone()).await.unwrap().is_empty());
    assert_eq!(
        create(enforce("baseline"), privileged.clone()).await.unwrap_err(),
        "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"c\" must not set \
         securityContext.privileged=true)"
    );
    assert_eq!(
        create(enforce("restricted"), json!({})).await.unwrap_err(),
        "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false \
         (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities \
         (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or \
         container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set \
         securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    create(enforce("restricted"), hardened()).await.unwrap();
    let warn =
        json!({"pod-security.kubernetes.io/warn": "baseline", "pod-security.kubernetes.io/warn-version": "v1.30"});
    let warnings = create(warn, privileged).await.unwrap();
    assert!(warnings[0].starts_with("would violate PodSecurity \"baseline:v1.30\": privileged"), "{warnings:?}");
}

#[test]
fn every_check_has_its_words() {
    let container = |context: Value| json!({"containers": [{"name": "c", "securityContext": context}]});
    let violations = |level: Level, spec: Value| {
        let found = level.violations(&Value::Null, &spec);
        found.iter().map(Violation::to_string).collect::<Vec<_>>()
    };
    for (spec, expected) in [
        (json!({"hostNetwork": true, "hostPID": true}), "host namespaces (hostNetwork=true, hostPID=true)"),
        (
            container(json!({"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}})),
            "non-default capabilities (container \"c\" must not include \"NET_ADMIN\" in \
             securityContext.capabilities.add)",
        ),
        (
            json!({"volumes": [{"name": "a", "hostPath": {}}, {"name": "b", "hostPath": {}}]}),
            "hostPath volumes (volumes \"a\", \"b\")",
        ),
        (
            json!({"containers": [{"name": "c", "ports": [{"hostPort": 80}, {"hostPort": 443}]}]}),
            "hostPort (container \"c\" uses hostPorts 80, 443)",
        ),
        (
            json!({"containers": [{"name": "c", "livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}]}),
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"10.0.0.1\")",
        ),
        (
            container(json!({"procMount": "Unmasked"})),
            "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            json!({"securityContext": {"seLinuxOptions": {"type": "spc_t", "user": "u"}}}),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
        ),
        (
            container(json!({"seccompProfile": {"type": "Unconfined"}})),
            "seccompProfile (container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_syncookies"}]}}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
            "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
        ),
    ] {
        assert_eq!(violations(Level::Baseline, spec), [expected]);
    }
    let with = |path: &str, value: Value| {
        let mut spec = hardened();
        *spec.pointer_mut(path).unwrap() = value;
        violations(Level::Restricted, spec)
    };
    assert!(violations(Level::Restricted, hardened()).is_empty());
    let volume = json!([{"name": "v", "nfs": {"server": "s", "path": "/"}}]);
    let expected = "restricted volume types (volume \"v\" uses restricted volume type \"nfs\")";
    assert_eq!(with("/volumes", volume), [expected]);
    let root = json!({"runAsNonRoot": true, "runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}});
    assert_eq!(with("/securityContext", root), ["runAsUser=0 (pod must not set runAsUser=0)"]);
    let context = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["SYS_TIME"]},
        "runAsNonRoot": false});
    assert_eq!(
        with("/containers/0/securityContext", context),
        [
            "unrestricted capabilities (container \"c\" must not include \"SYS_TIME\" in \
             securityContext.capabilities.add)",
            "runAsNonRoot != true (container \"c\" must not set securityContext.runAsNonRoot=false)",
        ]
    );
}

#[tokio::test]
async fn namespaces_name_real_levels_and_learn_of_pods_that_break_them() {
    let all = cluster([("pods", pod("a", json!({"hostPID": true}))), ("pods", pod("b", json!({"hostPID": true})))]);
    let case = || Case::create(&all, "", "namespaces", false).update(namespace("dev", json!({})));
    let labels = |level: &str| namespace("dev", json!({"pod-security.kubernetes.io/enforce": level}));
    let plugin = PodSecurity::default();
    let (code, message) = case().run(&plugin, labels("strict")).await.unwrap_err();
    assert_eq!(code, 422);
    assert!(message.contains("must be one of privileged, baseline, restricted"), "{message}");
    let (_, warnings) = case().run(&plugin, labels("baseline")).await.unwrap();
    assert_eq!(warnings[1], "a (and 1 other pod): host namespaces");
}
