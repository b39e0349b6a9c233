//! What callers may write, by who they are.

use super::*;

#[tokio::test]
async fn nodes_write_only_what_is_theirs() {
    let mirror = |node: &str| {
        let mut pod = pod("p", json!({"nodeName": node}));
        pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        pod["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "Node", "name": node, "uid": "n", "controller": true}]);
        pod
    };
    let with = |field: &str, value: Value| {
        let mut pod = mirror("n1");
        pod["spec"][field] = value;
        pod
    };
    let owned = |field: &str, value: Value| {
        let mut pod = mirror("n1");
        pod["metadata"]["ownerReferences"][0][field] = value;
        pod
    };
    let on = |node: &str| {
        let mut pod = pod("p", json!({"nodeName": node}));
        pod["metadata"]["uid"] = "u".into();
        pod
    };
    let volume = json!([{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}},
        {"serviceAccountToken": {"path": "v", "audience": "vault"}}]}}]);
    let mut bound = on("n1");
    bound["spec"]["volumes"] = volume;
    let all = cluster([("pods", bound), ("nodes", json!({"metadata": {"name": "n1", "uid": "n"}}))]);
    let node = || UserInfo::new("system:node:n1", ["system:nodes"]);
    let pods = || Case::pods(&all).by(node());
    let nodes = || Case::create(&all, "", "nodes", false).by(node());
    let leases = |ns| Case { namespace: ns, ..Case::create(&all, "coordination.k8s.io", "leases", true).by(node()) };
    let named = |name: &str| json!({"metadata": {"name": name}});
    let labelled = |key: &str| json!({"metadata": {"name": "n1", "labels": {key: "x"}}});
    let tainted = json!({"metadata": {"name": "n1"}, "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let token =
        |uid: &str| json!({"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid}}});
    let token_for = |audience: &str| {
        let mut token = token("u");
        token["spec"]["audiences"] = json!([audience]);
        token
    };
    let claim = |size: &str, name: &str| json!({"metadata": {"name": "c"}, "spec": {"volumeName": name}, "status": {"capacity": {"storage": size}}});
    let claims = || Case::create(&all, "", "persistentvolumeclaims", true).by(node()).update(claim("1Gi", "v"));
    let tokens = || Case::create(&all, "", "serviceaccounts", true).by(node()).sub("token");
    let projected = |source: &str, name: &str| json!([{"name": "v", "projected": {"sources": [{source: {"name": name, "path": "t"}}]}}]);
    let variable = |source: &str| {
        let from = json!({source: {"name": "s", "key": "k", "path": "p", "volumeName": "v"}});
        json!([{"name": "c", "env": [{"name": "V", "valueFrom": from}]}])
    };
    for (case, object, word) in [
        (pods(), mirror("n1"), ""),
        (pods(), mirror("n2"), "can only create pods with spec.nodeName set to itself"),
        (pods(), on("n1"), "can only create mirror pods"),
        (pods().delete(on("n1")), Value::Null, ""),
        (pods().delete(on("n2")), Value::Null, "can only delete pods"),
        (pods().update(on("n1")).sub("status"), on("n1"), ""),
        (pods().update(on("n2")).sub("status"), on("n2"), "can only update pod status"),
        (nodes(), named("n1"), ""),
        (nodes(), named("n2"), "is not allowed to modify node \"n2\""),
        (nodes(), labelled("node-restriction.kubernetes.io/x"), "not allowed to set the following labels"),
        (nodes(), labelled("kubernetes.io/hostname"), ""),
        (nodes(), labelled("example.com/x"), ""),
        (nodes().update(named("n1")), labelled("foo.kubernetes.io/x"), "is not allowed to modify labels"),
        (nodes().update(named("n1")), tainted.clone(), "is not allowed to modify taints"),
        (leases("kube-node-lease"), named("n1"), ""),
        (leases("kube-node-lease"), named("n2"), "same name as the requesting node"),
        (leases("dev"), named("n1"), "can only access leases"),
        (pods(), with("serviceAccountName", json!("s")), "reference serviceaccounts"),
        (pods(), with("imagePullSecrets", json!([{"name": "s"}])), "reference secrets"),
        (pods(), with("volumes", json!([{"name": "v", "configMap": {"name": "c"}}])), "reference configmaps"),
        (pods(), with("volumes", json!([{"name": "v", "configMap": {}}])), "configmaps (via configmap volumes)"),
        (pods(), with("volumes", projected("secret", "s")), "reference secrets"),
        (pods(), with("volumes", projected("serviceAccountToken", "")), "serviceaccounts (via projected volumes)"),
        (pods(), with("volumes", projected("downwardAPI", "")), ""),
        (pods(), with("resourceClaims", json!([{"name": "c"}])), "reference resourceclaims"),
        (pods(), with("containers", variable("secretKeyRef")), "reference secrets"),
        (pods(), with("containers", variable("fileKeyRef")), ""),
        // Names that are those of references only where references are.
        (pods(), with("nodeSelector", json!({"secretName": "s", "configMap": "c"})), ""),
        (pods(), with("overhead", json!({"secretRef": "1"})), ""),
        (pods(), with("volumes", json!([{"name": "v", "ephemeral": {}}])), "reference persistentvolumeclaims"),
        (pods(), with("volumes", json!([{"name": "secrets", "hostPath": {"path": "/"}}])), ""),
        (pods(), owned("uid", json!("other")), "UID mismatch"),
        (pods(), owned("controller", json!(false)), "controller owner reference"),
        (pods(), owned("blockOwnerDeletion", json!(true)), "must not set blockOwnerDeletion"),
        (claims().sub("status"), claim("2Gi", "v"), ""),
        (claims().sub("status"), claim("2Gi", "w"), "not allowed to update fields"),
        (claims(), claim("1Gi", "v"), "may only update PVC status"),
        (tokens(), token_for("vault"), ""),
        (tokens(), token_for("other"), "audience \"other\" not found in pod spec volume"),
        (tokens(), token("u"), ""),
        (tokens(), token("v"), "does not match the UID in record"),
        (tokens(), token(""), "without a uid"),
        (tokens(), json!({"spec": {}}), "not bound to a pod"),
        (Case::create(&all, "", "nodes", false), tainted, ""),
        (nodes().by(UserInfo::new("x", ["system:nodes"])), named("n1"), "could not determine node"),
    ] {
        let result = case.run(&NodeRestriction, object).await;
        match (word, &result) {
            ("", Ok(_)) => {}
            (word, Err((403, message))) if !word.is_empty() && message.contains(word) => {}
            _ => panic!("expected {word:?}, got {result:?}"),
        }
    }
}

#[tokio::test]
async fn certificates_for_masters_are_refused() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};
    let request = |names: &[(DnType, DnValue)]| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        json!({"metadata": {"name": "r"},
            "spec": {"signerName": "kubernetes.io/kube-apiserver-client", "request": STANDARD.encode(pem)}})
    };
    let text_of = |csr: &Value| csr["spec"]["request"].as_str().unwrap().to_owned();
    let text = |value: &str| DnValue::Utf8String(value.to_owned());
    let printable = DnValue::PrintableString("system:masters".try_into().unwrap());
    let wide = DnValue::BmpString("system:masters".try_into().unwrap());
    let organization = || DnType::OrganizationName;
    let all = cluster([]);
    let case = || Case::create(&all, "certificates.k8s.io", "certificatesigningrequests", false);
    for names in [
        vec![(organization(), text("system:masters"))],
        vec![(DnType::CommonName, text("jane")), (organization(), printable)],
    ] {
        let error = case().run(&CertificateSubjectRestriction, request(&names)).await.unwrap_err().1;
        assert!(error.contains("with system:masters group is not allowed"), "{error}");
    }
    // Another attribute's value is nobody's group, whatever bytes it holds.
    let hidden = "\u{6}\u{3}U\u{4}\n\u{c}\u{e}system:masters";
    for allowed in [vec![(organization(), text("developers"))], vec![(DnType::CommonName, text(hidden))]] {
        case().run(&CertificateSubjectRestriction, request(&allowed)).await.unwrap();
    }
    let mut junk = request(&[]);
    junk["spec"]["request"] = STANDARD.encode("-----BEGIN CERTIFICATE REQUEST-----\nMCAG\n").into();
    // Who signs may take the second of two, as Go does where the first one's end has another name.
    let pem =
        |names: &[(DnType, DnValue)]| String::from_utf8(STANDARD.decode(text_of(&request(names))).unwrap()).unwrap();
    let harmless = pem(&[(organization(), text("developers"))]);
    let masters = pem(&[(organization(), text("system:masters"))]);
    let several = [harmless.clone() + &masters, harmless.replace("END CERTIFICATE REQUEST", "END X") + &masters];
    let several = several.map(|pem| {
        let mut several = request(&[]);
        several["spec"]["request"] = STANDARD.encode(pem).into();
        several
    });
    for unreadable in [request(&[(organization(), wide)]), junk].into_iter().chain(several) {
        let error = case().run(&CertificateSubjectRestriction, unreadable).await.unwrap_err().1;
        assert!(error.contains("failed to parse CSR"), "{error}");
    }
}

#[tokio::test]
async fn signers_and_owners_are_asked_for() {
    use crate::server::{Decision, authz::AlwaysAllow};
    struct Never;
    #[async_trait]
    impl Authorizer for Never {
        async fn authorize(&self, _: &Attributes) -> Decision {
            Decision::NoOpinion(String::new())
        }
    }
    let all = cluster([]);
    let csr = |certificate: &str| json!({"metadata": {"name": "r"}, "spec": {"signerName": "example.com/s"}, "status": {"certificate": certificate}});
    let case =
        |sub| Case::create(&all, "certificates.k8s.io", "certificatesigningrequests", false).update(csr("")).sub(sub);
    let never: Arc<dyn Authorizer> = Arc::new(Never);
    let always: Arc<dyn Authorizer> = Arc::new(AlwaysAllow);
    for (authorizer, allowed) in [(&never, false), (&always, true)] {
        let approval = CertificateApproval::new(Arc::clone(authorizer));
        assert_eq!(case("approval").run(&approval, csr("")).await.is_ok(), allowed);
        let signing = CertificateSigning::new(Arc::clone(authorizer));
        assert_eq!(case("status").run(&signing, csr("x")).await.is_ok(), allowed);
        assert!(case("status").run(&signing, csr("")).await.is_ok());
        let owners = OwnerReferencesPermissionEnforcement::new(Arc::clone(authorizer));
        let owned = |block: bool| {
            let mut pod = pod("p", json!({}));
            pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "d",
                "uid": "u", "blockOwnerDeletion": block}]);
            pod
        };
        assert!(Case::pods(&all).run(&owners, owned(false)).await.is_ok());
        assert_eq!(Case::pods(&all).run(&owners, owned(true)).await.is_ok(), allowed);
        let update = Case::pods(&all).update(pod("p", json!({})));
        assert_eq!(update.run(&owners, owned(false)).await.is_ok(), allowed);
    }
}
