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
        let found = level.violations(Version::Latest, &Value::Null, &spec);
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
    // What was wrong before does not keep all else from changing.
    let mut other = labels("strict");
    other["metadata"]["annotations"] = json!({"a": "b"});
    Case::create(&all, "", "namespaces", false).update(labels("strict")).run(&plugin, other).await.unwrap();
    let still = Case::create(&all, "", "namespaces", false).update(labels("strict")).run(&plugin, labels("lax")).await;
    assert_eq!(still.unwrap_err().0, 422);
}

#[tokio::test]
async fn of_many_pods_the_first_are_looked_at() {
    let pods = (0..3100).map(|i| ("pods", pod(&format!("p{i}"), json!({}))));
    let all = cluster(pods.collect::<Vec<_>>());
    let case = Case::create(&all, "", "namespaces", false).update(namespace("dev", json!({})));
    let wanted = namespace("dev", json!({"pod-security.kubernetes.io/enforce": "baseline"}));
    let (_, warnings) = case.run(&PodSecurity::default(), wanted).await.unwrap();
    assert!(warnings[0].ends_with("of 3100 existing pods"), "{warnings:?}");
}

#[test]
fn what_a_level_means_depends_on_the_version() {
    let spec = |context: Value| json!({"containers": [{"name": "c"}], "securityContext": context});
    let sysctl = |name: &str| spec(json!({"sysctls": [{"name": name}]}));
    let probe = json!({"containers": [{"name": "c", "livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}]});
    let mut windows = hardened();
    windows["os"] = json!({"name": "windows"});
    windows["containers"][0]["securityContext"] = json!({});
    let mut root = hardened();
    root["securityContext"]["runAsUser"] = json!(0);
    let mut unprofiled = hardened();
    unprofiled["securityContext"] = json!({"runAsNonRoot": true});
    let mut undropped = hardened();
    undropped["containers"][0]["securityContext"] = json!({"allowPrivilegeEscalation": false});
    let mut escalating = undropped.clone();
    escalating["containers"][0]["securityContext"] = json!({"capabilities": {"drop": ["ALL"]}});
    let (baseline, restricted) = (Level::Baseline, Level::Restricted);
    // The last version that says otherwise than the next one, and whether that one allows it.
    for (what, level, spec, last, allows) in [
        ("a sysctl", baseline, sysctl("net.ipv4.ip_local_reserved_ports"), 26, true),
        ("a sysctl", baseline, sysctl("net.ipv4.tcp_fin_timeout"), 28, true),
        ("a sysctl", baseline, sysctl("net.ipv4.tcp_rmem"), 31, true),
        ("SELinux", baseline, spec(json!({"seLinuxOptions": {"type": "container_engine_t"}})), 30, true),
        ("a probe's host", baseline, probe, 33, false),
        ("a profile", baseline, spec(json!({"seccompProfile": {"type": "Unconfined"}})), 18, false),
        ("no profile", restricted, unprofiled, 18, false),
        ("kept capabilities", restricted, undropped, 21, false),
        ("escalation", restricted, escalating, 7, false),
        ("root", restricted, root, 22, false),
        ("Windows", restricted, windows, 24, true),
    ] {
        let is_allowed = |minor: u32| level.violations(Version::Minor(minor), &Value::Null, &spec).is_empty();
        assert_eq!((is_allowed(last), is_allowed(last + 1)), (!allows, allows), "{what} {last}");
        let latest = level.violations(Version::Latest, &Value::Null, &spec).is_empty();
        assert_eq!(latest, allows, "{what} now");
    }
    let annotated = json!({"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined",
        "container.seccomp.security.alpha.kubernetes.io/c": "localhost/x"}});
    let found = baseline.violations(Version::Minor(18), &annotated, &spec(json!({})));
    let why = "seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")";
    assert_eq!(found.iter().map(Violation::to_string).collect::<Vec<_>>(), [why]);
}

#[tokio::test]
async fn the_audit_log_is_told_and_some_are_exempt() {
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/audit": "restricted",
        "pod-security.kubernetes.io/audit-version": "v1.25"});
    let all = cluster([("namespaces", namespace("dev", labels))]);
    let exempt = Exemptions {
        usernames: vec!["root".to_owned()],
        runtime_classes: vec!["vm".to_owned()],
        namespaces: vec!["infra".to_owned()],
    };
    let plugin = PodSecurity { exempt, ..PodSecurity::default() };
    let key = |name: &str| format!("pod-security.kubernetes.io/{name}");
    let host = json!({"hostPID": true});

    let (request, decided) = Case::pods(&all).seen(&plugin, pod("p", json!({}))).await;
    decided.unwrap();
    let notes = request.notes.annotations();
    assert_eq!(notes[0], (key("enforce-policy"), "baseline:latest".to_owned()));
    assert_eq!(notes[1].0, key("audit-violations"));
    let head =
        "would violate PodSecurity \"restricted:v1.25\": allowPrivilegeEscalation != false (container \"c\" must";
    assert!(notes[1].1.starts_with(head), "{notes:?}");
    assert!(request.notes.take_warnings().is_empty());
    // Who is refused is told of too; a workload is not refused.
    let (request, decided) = Case::pods(&all).seen(&plugin, pod("p", host.clone())).await;
    assert_eq!((decided.unwrap_err().code, request.notes.annotations().len()), (Some(403), 2));
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"template": pod("p", host.clone())}});
    let (request, decided) = Case::create(&all, "apps", "deployments", true).seen(&plugin, deployment).await;
    decided.unwrap();
    assert_eq!(request.notes.annotations().len(), 1);

    let mut in_a_vm = host.clone();
    in_a_vm["runtimeClassName"] = json!("vm");
    for (case, spec, why) in [
        (Case::pods(&all).by(UserInfo::new("root", [])), host.clone(), "user"),
        (Case { namespace: "infra", ..Case::pods(&all) }, host, "namespace"),
        (Case::pods(&all), in_a_vm, "runtimeClass"),
    ] {
        let (request, decided) = case.seen(&plugin, pod("p", spec)).await;
        decided.unwrap();
        assert_eq!(request.notes.annotations(), [(key("exempt"), why.to_owned())]);
    }
    let wrong = namespace("dev", json!({"pod-security.kubernetes.io/warn-version": "1.25"}));
    let case = Case::create(&all, "", "namespaces", false);
    let (_, message) = case.run(&plugin, wrong).await.unwrap_err();
    assert!(message.ends_with("Invalid value: \"1.25\": must be \"latest\" or \"v1.x\""), "{message}");
    let infra = |level: &str| namespace("infra", json!({"pod-security.kubernetes.io/enforce": level}));
    let case = Case::create(&all, "", "namespaces", false).update(infra("privileged"));
    let (_, warnings) = case.run(&plugin, infra("restricted")).await.unwrap();
    assert!(
        warnings[0].contains("is exempt from Pod Security, and the policy (enforce=restricted:latest)"),
        "{warnings:?}"
    );
}
