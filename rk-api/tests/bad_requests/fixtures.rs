//! What the wrong requests run into: objects that are there before them.

/// Collection path and object.
pub const FIXTURES: &[(&str, &str)] = &[
    ("/api/v1/namespaces/default/serviceaccounts", r#"{"metadata":{"name":"default"}}"#),
    (
        "/api/v1/namespaces/default/pods",
        r#"{"metadata":{"name":"taken"},"spec":{"automountServiceAccountToken":false,"containers":[{"name":"c","image":"i"}]}}"#,
    ),
    ("/api/v1/namespaces/default/configmaps", r#"{"metadata":{"name":"cm"},"data":{"a":"1"}}"#),
    ("/api/v1/namespaces/default/configmaps", r#"{"metadata":{"name":"frozen"},"immutable":true,"data":{"a":"1"}}"#),
    ("/api/v1/namespaces/default/secrets", r#"{"metadata":{"name":"sealed"},"immutable":true,"stringData":{"a":"1"}}"#),
    ("/api/v1/namespaces/default/services", r#"{"metadata":{"name":"svc"},"spec":{"ports":[{"port":80}]}}"#),
    ("/api/v1/namespaces/default/serviceaccounts", r#"{"metadata":{"name":"robot"}}"#),
    (
        "/apis/apps/v1/namespaces/default/deployments",
        r#"{"metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#,
    ),
    (
        "/apis/batch/v1/namespaces/default/jobs",
        r#"{"metadata":{"name":"j"},"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}"#,
    ),
    (
        "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles",
        r#"{"metadata":{"name":"r"},"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]}"#,
    ),
    (
        "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
        r#"{"metadata":{"name":"rb"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"r"},"subjects":[{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"limited"}]}"#,
    ),
    ("/apis/scheduling.k8s.io/v1/priorityclasses", r#"{"metadata":{"name":"pc"},"value":5}"#),
    (
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        r#"{"metadata":{"name":"widgets.example.com"},"spec":{"group":"example.com","scope":"Namespaced","names":{"plural":"widgets","singular":"widget","kind":"Widget","listKind":"WidgetList"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","required":["spec"],"properties":{"spec":{"type":"object","required":["size"],"properties":{"size":{"type":"integer","minimum":1,"maximum":10},"color":{"type":"string","enum":["red","blue"]},"code":{"type":"string","pattern":"^[a-z]+$","maxLength":5},"tags":{"type":"array","maxItems":2,"items":{"type":"string"}}}}}}}}]}}"#,
    ),
];
