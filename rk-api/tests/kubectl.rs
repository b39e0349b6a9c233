//! The real kubectl against the server over HTTP.
#![cfg(feature = "serve")]

mod kubectl_cluster;

use kubectl_cluster::Cluster;

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: nginx}
";

#[tokio::test(flavor = "multi_thread")]
async fn everyday_verbs() {
    let Some(cluster) = Cluster::start().await else { return };
    let applied = cluster.ok("apply -f -", DEPLOYMENT).await;
    assert_eq!(applied.trim(), "deployment.apps/web created");
    let again = cluster.ok("apply -f -", DEPLOYMENT).await;
    assert_eq!(again.trim(), "deployment.apps/web unchanged");
    let table = cluster.ok("get deploy", "").await;
    assert!(table.starts_with("NAME") && table.contains("READY") && table.contains("0/2"), "{table}");
    let scaled = cluster.ok("scale deploy web --replicas=5", "").await;
    assert_eq!(scaled.trim(), "deployment.apps/web scaled");
    assert_eq!(cluster.ok("get deploy web -o jsonpath={.spec.replicas}", "").await, "5");
    cluster.ok("set image deploy web c=nginx:2", "").await;
    assert_eq!(cluster.ok("get deploy web -o jsonpath={.spec.template.spec.containers[0].image}", "").await, "nginx:2");
    cluster.ok("label deploy web tier=front", "").await;
    assert!(cluster.ok("get deploy -l tier=front -o name", "").await.contains("deployment.apps/web"));
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}";
    assert_eq!(cluster.ok("create -f -", config).await.trim(), "configmap/c created");
    assert!(cluster.ok("get configmap c -o yaml", "").await.contains("a: b"));
    let applied = DEPLOYMENT.replace("name: web", "name: ssa");
    cluster.ok("apply --server-side -f -", &applied).await;
    let conflicting = applied.replace("replicas: 2", "replicas: 3");
    let (won, conflict) = cluster.run("apply --server-side --field-manager=other -f -", &conflicting).await;
    assert!(!won && conflict.contains("conflict"), "{conflict}");
    assert!(cluster.ok("explain deployment.spec.replicas", "").await.contains("Number of desired pods"));
    let unknown = DEPLOYMENT.replace("replicas: 2", "replicaz: 2");
    let (won, strict) = cluster.run("apply -f -", &unknown).await;
    assert!(!won && strict.contains("unknown field \"spec.replicaz\""), "{strict}");
    cluster.ok("create configmap d --from-literal=a=b", "").await;
    cluster.ok("create role r --verb=get --resource=pods", "").await;
    cluster.ok("create rolebinding rb --role=r --user=jane", "").await;
    cluster.ok("create deployment e --image=nginx --replicas=0 --port=80", "").await;
    assert_eq!(cluster.ok("get deploy e -o jsonpath={.spec.replicas}", "").await, "0");
    cluster.ok("create service clusterip s --tcp=80:8080", "").await;
    assert_eq!(cluster.ok("get svc s -o jsonpath={.spec.ports[0].targetPort}", "").await, "8080");
    assert!(cluster.ok("api-resources", "").await.contains("deployments"));
    assert!(cluster.ok("api-versions", "").await.contains("rbac.authorization.k8s.io/v1"));
    let (found, missing) = cluster.run("get pod nope", "").await;
    assert!(!found && missing.contains("Error from server (NotFound): pods \"nope\" not found"), "{missing}");
    assert_eq!(cluster.ok("delete deploy web", "").await.trim(), "deployment.apps \"web\" deleted");
    assert!(cluster.ok("version", "").await.contains("Server Version: v1.36"));
    assert_eq!(cluster.ok("get --raw /readyz", "").await, "ok");
    let old = "Warning: v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";
    assert!(cluster.ok("get endpoints", "").await.contains(old));
    cluster.ok("create job j --image=i", "").await;
    let deleted = cluster.ok("delete --raw /apis/batch/v1/namespaces/default/jobs/j", "").await;
    assert!(deleted.contains("Warning: child pods are preserved by default when jobs are deleted"), "{deleted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_patches_and_apply() {
    let Some(cluster) = Cluster::start().await else { return };
    let explained = cluster.ok("explain deployment.spec.strategy", "").await;
    assert!(explained.contains("rollingUpdate") && explained.contains("DESCRIPTION"), "{explained}");
    assert!(cluster.ok("explain pod --recursive", "").await.contains("livenessProbe"));
    assert!(cluster.ok("explain hpa.spec.metrics", "").await.contains("containerResource"));

    let typo = DEPLOYMENT.replace("replicas", "replica");
    let (applied, text) = cluster.run("apply -f -", &typo).await;
    assert!(!applied && text.contains("strict decoding error: unknown field \"spec.replica\""), "{text}");
    let wrong = DEPLOYMENT.replace("replicas: 2", "replicas: two");
    let (applied, text) = cluster.run("apply -f -", &wrong).await;
    assert!(
        !applied
            && text.contains(
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
            ),
        "{text}"
    );

    // kubectl itself looks at the objects of a List, with the older form of the schemas.
    let list = |field: &str| {
        format!(
            "apiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: ConfigMap, metadata: {{name: l}}, {field}: {{a: b}}}}\n"
        )
    };
    assert_eq!(cluster.ok("apply -f -", &list("data")).await.trim(), "configmap/l created");
    let (applied, text) = cluster.run("apply -f -", &list("dada")).await;
    assert!(!applied && text.contains("unknown field \"dada\" in io.k8s.api.core.v1.ConfigMap"), "{text}");

    cluster.ok("apply -f -", DEPLOYMENT).await;
    let changed = DEPLOYMENT.replace("image: nginx}", "image: nginx2, env: [{name: A, value: b}]}");
    assert_eq!(cluster.ok("apply -f -", &changed).await.trim(), "deployment.apps/web configured");
    cluster.ok("patch deploy web -p {\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"d\",\"image\":\"e\"}]}}}}", "").await;
    let names = "get deploy web -o jsonpath={.spec.template.spec.containers[*].name}";
    assert_eq!(cluster.ok(names, "").await, "d c");
    cluster.ok("set image deploy/web c=other", "").await;
    let image = "get deploy web -o jsonpath={.spec.template.spec.containers[?(@.name==\"c\")].image}";
    assert_eq!(cluster.ok(image, "").await, "other");
    let (applied, text) = cluster.run("apply --server-side --field-manager=other -f -", DEPLOYMENT).await;
    assert!(
        !applied
            && text.contains(
                "conflict with \"kubectl-set\" using apps/v1: .spec.template.spec.containers[name=\"c\"].image"
            ),
        "{text}"
    );
    let forced = cluster.ok("apply --server-side --force-conflicts -f -", DEPLOYMENT).await;
    assert_eq!(forced.trim(), "deployment.apps/web serverside-applied");
    assert_eq!(cluster.ok(image, "").await, "nginx");
    let managers =
        cluster.ok("get deploy web --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}", "").await;
    assert!(managers.contains("kubectl"), "{managers}");
    let (_, diff) = cluster.run("diff --server-side -f -", DEPLOYMENT).await;
    assert_eq!(diff, "");
}

const CRONTABS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct]}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: What is wanted.
            required: [cron]
            properties:
              cron: {type: string, pattern: '^[0-9* ]+$', description: When to run.}
              replicas: {type: integer, minimum: 1, default: 1}
";

#[tokio::test(flavor = "multi_thread")]
async fn custom_resources_have_schemas() {
    let Some(cluster) = Cluster::start().await else { return };
    let object = "apiVersion: stable.example.com/v1\nkind: CronTab\nmetadata: {name: a}\nspec: {cron: '* * 5'}";
    let (applied, text) = cluster.run("apply -f -", object).await;
    assert!(!applied && text.contains("ensure CRDs are installed first"), "{text}");
    cluster.ok("apply -f -", CRONTABS).await;
    cluster.ok("wait --for=condition=Established crd/crontabs.stable.example.com --timeout=10s", "").await;
    cluster.ok("apply -f -", object).await;
    assert_eq!(cluster.ok("get ct a -o jsonpath={.spec.replicas}", "").await, "1");
    let explained = cluster.ok("explain crontab.spec", "").await;
    assert!(explained.contains("When to run.") && explained.contains("What is wanted."), "{explained}");
    let (applied, text) = cluster.run("apply -f -", &object.replace("cron:", "crom:")).await;
    assert!(!applied && text.contains("unknown field \"spec.crom\""), "{text}");
    let (applied, text) = cluster.run("apply -f -", &object.replace("* * 5", "x")).await;
    let wording = "spec.cron: Invalid value: \"x\": spec.cron in body should match '^[0-9* ]+$'";
    assert!(!applied && text.contains(wording), "{text}");
    cluster.ok("apply --server-side --force-conflicts -f -", object).await;
    let (patched, text) = cluster.run("patch ct a --type=strategic -p {}", "").await;
    assert!(!patched && text.contains("unknown format"), "{text}");
    assert_eq!(
        cluster.ok("patch ct a --type=merge -p {\"spec\":{\"replicas\":3}}", "").await.trim(),
        "crontab.stable.example.com/a patched"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_ips_are_objects() {
    let Some(cluster) = Cluster::start().await else { return };
    cluster.ok("create service clusterip s --tcp=80:8080", "").await;
    let ip = cluster.ok("get svc s -o jsonpath={.spec.clusterIP}", "").await;
    let table = cluster.ok("get ipaddresses", "").await;
    assert!(table.starts_with("NAME") && table.contains("PARENTREF") && table.contains(&ip), "{table}");
    assert!(table.contains("services/default/s"), "{table}");

    let wanted = |name: &str, ip: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}"
        )
    };
    let (made, refused) = cluster.run("create -f -", &wanted("far", "192.168.77.3")).await;
    assert!(!made && refused.contains("the provided network does not match the current range"), "{refused}");
    let range =
        "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: more}\nspec: {cidrs: [192.168.77.0/28]}";
    cluster.ok("create -f -", range).await;
    assert!(cluster.ok("get servicecidrs", "").await.contains("192.168.77.0/28"));
    cluster.ok("create -f -", &wanted("far", "192.168.77.3")).await;
    let (made, refused) = cluster.run("create -f -", &wanted("twice", "192.168.77.3")).await;
    assert!(!made && refused.contains("provided IP is already allocated"), "{refused}");
    let parent = "get ipaddress 192.168.77.3 -o jsonpath={.spec.parentRef.name}";
    assert_eq!(cluster.ok(parent, "").await, "far");
    let moved = range.replace("192.168.77.0", "192.168.78.0");
    let (changed, refused) = cluster.run("apply -f -", &moved).await;
    assert!(!changed && refused.contains("field is immutable"), "{refused}");
    cluster.ok("delete svc s far", "").await;
    assert!(cluster.ok("get ipaddresses", "").await.contains("No resources found"));
}
